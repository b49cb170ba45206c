"""Stores of other tools, as small as they can be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.gguf_files import write_model

__all__ = ["HfCache", "OllamaFolder"]

_KIND = "application/vnd.ollama.image."


class OllamaFolder:
    """Ollama's store: ``tag`` is what ``ollama create`` does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs").mkdir(parents=True)
        (path / "manifests").mkdir()

    def blob(self, content: bytes) -> str:
        """Keep a blob, and return its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blob_path(digest).write_bytes(content)
        return digest

    def blob_path(self, digest: str) -> Path:
        """Return where a blob is."""
        return self.path / "blobs" / digest.replace(":", "-")

    def manifest(self, name: str) -> Path:
        """Return where the manifest of ``registry/namespace/model:tag`` is."""
        path = self.path / "manifests" / Path(*name.replace(":", "/").split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def weights(self, word: str = "x", **options: Any) -> bytes:
        """Return a model's file; another one for each word."""
        path = self.path / "new"
        content = write_model(path, names=[word], **options).read_bytes()
        path.unlink()
        return content

    def tag(
        self,
        name: str = "llama3.2:3b",
        weights: bytes | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        **others: bytes,
    ) -> str:
        """Make a tag, and return the digest of its weights. ``others``: layers by their kind."""
        contents = {"model": self.weights() if weights is None else weights, **others}
        if params is not None:
            contents["params"] = json.dumps(params).encode()
        layers = [
            {"mediaType": _KIND + kind, "digest": self.blob(content), "size": len(content)}
            for kind, content in contents.items()
        ]
        self.manifest(full_name(name)).write_text(
            json.dumps({"schemaVersion": 2, "config": {}, "layers": layers})
        )
        return str(layers[0]["digest"])

    def remove(self, name: str) -> None:
        """Remove a tag; blobs stay."""
        self.manifest(full_name(name)).unlink()


def full_name(name: str) -> str:
    """Return a tag's whole name, the usual registry and namespace put before."""
    given = name.count("/")
    return ("registry.ollama.ai/library/", "registry.ollama.ai/", "")[given] + name


class HfCache:
    """The Hugging Face cache: files of snapshots are links to blobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)

    def place(self, repository: str) -> Path:
        """Return a repository's folder."""
        return self.path / f"models--{repository.replace('/', '--')}"

    def file(self, repository: str, revision: str, name: str, content: bytes) -> Path:
        """Keep a file of a snapshot, and return its path there."""
        place = self.place(repository)
        blob = place / "blobs" / hashlib.sha256(content).hexdigest()
        path = place / "snapshots" / revision / name
        for folder in (blob.parent, path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        path.symlink_to(blob)
        return path

    def main(self, repository: str, revision: str) -> None:
        """Say which revision ``main`` is."""
        path = self.place(repository) / "refs" / "main"
        path.parent.mkdir(exist_ok=True)
        path.write_text(revision)
