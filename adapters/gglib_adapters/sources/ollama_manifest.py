"""Ollama's manifests: what a tag of a model is made of.

Source: Ollama 0.9, server/manifest.go, server/layer.go, types/model/name.go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from gglib.domain.file_mark import FileMark
from gglib.domain.model import check_alias
from gglib.errors import InvalidModelFile, InvalidValue
from gglib_adapters.sources.bounded_reader import mark_of
from gglib_adapters.sources.store_files import is_there, read_json

__all__ = ["Blob", "OllamaTag", "read_tag"]

_MAX_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_KIND = "application/vnd.ollama.image."
_REGISTRY, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_TAKEN = frozenset({"model", "projector", "params"})
_MAX_LAYERS = 1000


@attrs.frozen(kw_only=True)
class Blob:
    """A file of the store, and what it was."""

    path: Path
    mark: FileMark


@attrs.frozen(kw_only=True)
class OllamaTag:
    """One tag: ``llama3.2:3b``. Its weights, what belongs to them, and what it says of them."""

    manifest: Path
    repository: str
    names: tuple[str, ...]
    digest: str
    """Of the manifest: what ``ollama list`` shows as its id."""
    model: Blob
    projector: Path | None
    params: Mapping[str, Any]
    others: frozenset[str]
    """The kinds of its layers that are neither of these."""

    @property
    def is_plain(self) -> bool:
        """Whether it is what was pulled, and nobody's variation of it."""
        return not self.others & {"adapter", "system"}


def read_tag(store: Path, manifest: Path) -> OllamaTag:
    """Read a manifest and the small blobs that it names.

    Raises:
        ModelFileMissing, InvalidModelFile: it, or what it names, is damaged or missing.
    """
    said, content = read_json(manifest, _MAX_BYTES)
    layers, others = dict[str, Blob](), set[str]()
    for kind, layer in _layers(manifest, said.get("layers")):
        if kind not in _TAKEN:
            others.add(kind)
        elif kind in layers:
            raise InvalidModelFile(manifest, f"it has more than one layer with its {kind}")
        else:
            layers[kind] = _blob(store, manifest, layer)
    if "model" not in layers:
        raise InvalidModelFile(manifest, "no GGUF file of it is here: it has no such layer")
    registry, namespace, model, tag = manifest.parts[-4:]
    projector = layers.get("projector")
    params = layers.get("params")
    return OllamaTag(
        manifest=manifest,
        repository=f"{registry}/{namespace}/{model}:{tag}",
        names=_names(manifest, registry, namespace, model, tag),
        digest=hashlib.sha256(content).hexdigest(),
        model=layers["model"],
        projector=None if projector is None else projector.path,
        params={} if params is None else read_json(params.path, _MAX_BYTES)[0],
        others=frozenset(others),
    )


def _layers(manifest: Path, said: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(said, list) or len(said) > _MAX_LAYERS:
        raise InvalidModelFile(manifest, "damaged: it has no list of layers")
    for layer in said:
        kind = layer.get("mediaType") if isinstance(layer, dict) else None
        if not isinstance(kind, str):
            raise InvalidModelFile(manifest, "damaged: a layer does not say what it is")
        if kind.startswith(_KIND):
            yield kind.removeprefix(_KIND).partition(";")[0], layer


def _blob(store: Path, manifest: Path, layer: Mapping[str, Any]) -> Blob:
    digest = layer.get("digest")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        shown = str(digest)[:80]
        raise InvalidModelFile(manifest, f"damaged: {shown!r} is not the digest of a blob")
    folder = store / "blobs"
    names = [f"sha256{separator}{match[1]}" for separator in "-:"]
    path = next((folder / name for name in names if is_there(folder / name)), None)
    if path is None:
        raise InvalidModelFile(manifest, f"its blob {names[0]} is missing; `ollama pull` gets it")
    try:
        if path.resolve(strict=True).parent != folder.resolve(strict=True):
            reason = f"its blob {path.name} is a link out of the store; add that file itself"
            raise InvalidModelFile(manifest, reason)
        mark = mark_of(path.stat())
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidModelFile(manifest, f"its blob {path.name}: {reason}") from error
    size = layer.get("size")
    if size != mark.size_bytes:
        shown = str(size)[:40]
        reason = f"its blob {path.name} has {mark.size_bytes} bytes, and should have {shown}"
        raise InvalidModelFile(manifest, f"{reason}; `ollama pull` gets it again")
    return Blob(path=path, mark=attrs.evolve(mark, sha256=match[1]))


def _names(manifest: Path, registry: str, namespace: str, model: str, tag: str) -> tuple[str, ...]:
    """Return what Ollama's users call it, the whole name first."""
    base = model if namespace == _NAMESPACE else f"{namespace}/{model}"
    base = base if registry == _REGISTRY else f"{registry}/{namespace}/{model}"
    names = (f"{base}:{tag}", base) if tag == _TAG else (f"{base}:{tag}",)
    try:
        return tuple(check_alias(name) for name in names)
    except InvalidValue as error:
        reason = f"its name is not {error.expected}; `ollama cp` gives it another"
        raise InvalidModelFile(manifest, reason) from None
