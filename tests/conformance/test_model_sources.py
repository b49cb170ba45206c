"""Every model source keeps its port's promises."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from support.far_machine import FarMachine, far_machine
from support.gguf_files import U32, pair, write_model

from gglib.domain.model import Capability, ModelFacts
from gglib.ports.context import AdapterContext
from gglib.ports.model_source import ModelSource
from gglib.testing import ModelSourceContract
from gglib.testing.contracts.model_source import KnownModel, OpenSource
from gglib_adapters.runners.ssh import open_ssh_runner
from gglib_adapters.sources.file import FileModelSource, open_file_source


def write_shards(folder: Path, *, skip: int | None = None) -> list[Path]:
    """Write a model in three files, without the one to ``skip``; return those there are."""
    paths = []
    for number in range(1, 4):
        path = folder / f"big-{number:05d}-of-00003.gguf"
        if number != skip:
            entries = [pair("split.count", U32, struct.pack("<I", 3))]
            paths.append(write_model(path, pairs=entries, names=[f"blk.{number}.weight"]))
    return paths


class TestFileSource(ModelSourceContract):
    """Models on this machine's disks."""

    @pytest.fixture
    def open_source(self) -> OpenSource:
        return open_file_source

    @pytest.fixture
    def a_model(self, tmp_path: Path) -> KnownModel:
        path = write_model(tmp_path / "..a modèl 'x'.gguf")
        facts = ModelFacts(
            architecture="llama",
            quantization="F32",
            parameters=1,
            input_bytes=4,
            output_bytes=0,
            capabilities=[Capability.COMPLETION],
        )
        return KnownModel(reference=str(path), size_bytes=path.stat().st_size, facts=facts)

    @pytest.fixture
    def a_sharded_model(self, tmp_path: Path) -> KnownModel:
        paths = write_shards(tmp_path)
        size_bytes = sum(path.stat().st_size for path in paths)
        return KnownModel(reference=str(paths[1]), size_bytes=size_bytes, shards=3)

    @pytest.fixture
    def missing_reference(self, tmp_path: Path) -> str:
        return str(tmp_path / "gone.gguf")

    @pytest.fixture
    def missing_shard(self, tmp_path: Path) -> str:
        return str(write_shards(tmp_path, skip=3)[0])

    @pytest.fixture
    def not_a_model(self, tmp_path: Path) -> str:
        path = tmp_path / "text.gguf"
        path.write_text("GGUF, it says, and is none")
        return str(path)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarMachine]:
    """Give a machine behind an OpenSSH server."""
    with far_machine(tmp_path_factory.mktemp("box")) as machine:
        yield machine


class TestFarSource(TestFileSource):
    """The same files, on another machine: on this one, behind an OpenSSH server."""

    backends = ("asyncio",)

    @pytest.fixture
    def open_source(self, machine: FarMachine) -> OpenSource:
        @asynccontextmanager
        async def opened(context: AdapterContext) -> AsyncIterator[ModelSource]:
            there = attrs.evolve(context, name="box", settings=machine.settings)
            async with open_ssh_runner(there) as runner:
                yield FileModelSource().elsewhere(runner.files)

        return opened
