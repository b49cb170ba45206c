"""Every hub keeps its port's promises."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from support.hub import LocalHub, local_hub
from support.pulled import model_bytes

from gglib.domain.hub import HubFile, HubRevision
from gglib.testing import ModelHubContract
from gglib.testing.contracts.model_hub import OpenModelHub
from gglib_adapters.hub.hugging_face import open_hugging_face_hub

FILES = {"tiny-Q4_0.gguf": model_bytes(seed=1), "more/tiny-Q8_0.gguf": model_bytes(seed=2)}


class TestHuggingFaceHub(ModelHubContract):
    """A hub that speaks the Hugging Face hub's API, with a token."""

    @pytest.fixture
    def local(self) -> Iterator[LocalHub]:
        with local_hub() as hub:
            hub.add("acme/tiny-GGUF", {**FILES, "README.md": b"#"})
            hub.add("acme/tiny-other", {})
            yield hub

    @pytest.fixture
    def open_hub(self, local: LocalHub, monkeypatch: pytest.MonkeyPatch) -> OpenModelHub:
        monkeypatch.setenv("HF_ENDPOINT", local.endpoint)
        monkeypatch.setenv("HF_TOKEN", local.token)
        return open_hugging_face_hub

    @pytest.fixture
    def known(self, local: LocalHub) -> HubRevision:
        return HubRevision(
            repository="acme/tiny-GGUF",
            commit=local.repositories["acme/tiny-GGUF"].branches["main"],
            files=[
                HubFile(
                    path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
                )
                for path, content in FILES.items()
            ],
        )
