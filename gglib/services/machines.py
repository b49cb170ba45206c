"""The machines where runners' servers run: their memory, and the models' files on them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import anyio
import attrs

from gglib.domain.device import DeviceSurvey
from gglib.domain.handle import ProcessHandle
from gglib.domain.model import Model
from gglib.domain.projector import choose_projector, with_projector
from gglib.domain.server_memory import ServerMemory
from gglib.errors import AdapterError, GglibError, ModelError, NodeUnreachable, NotConfigured
from gglib.ports.context import RunnerSet
from gglib.ports.far_files import FarFiles
from gglib.ports.model_source import ModelSource

__all__ = ["Machines", "device_of"]

#: How long another machine may take to tell its memory, with the connection that it needs.
_SURVEY_TIMEOUT_S = 5.0


def device_of(runner: str, device: str) -> str:
    """Return the name of a device on the machine of a runner, such as ``box/cuda0``."""
    return f"{runner}/{device}"


class Machines:
    """Asks runners, by name. What a broken one would tell is that its servers run here."""

    def __init__(self, runners: RunnerSet, default_runner: str, source: ModelSource) -> None:
        """``default_runner``: of models that name none."""
        self.names = tuple(runners)
        self._runners = runners
        self._default_runner = default_runner
        self._source = source
        self._read: dict[tuple[str, Path], Model] = {}

    def names_for(self, model: Model) -> tuple[str, ...]:
        """Return the runners that may run the model's servers, in the order of their trial."""
        return model.defaults.runners or (self._default_runner,)

    def files(self, name: str) -> FarFiles | None:
        """Return the files on the machine of a runner; ``None`` = those of this machine."""
        runner = self._runners.get(name)
        return None if runner is None else runner.files

    async def survey(self, name: str) -> DeviceSurvey | None:
        """Return the memory of the machine of a runner; ``None`` = it is that of this machine.

        Raises:
            NodeUnreachable: nobody there answers, or not soon.
            AdapterError: the runner is broken.
        """
        runner = self._runners.get(name)
        if runner is None:
            return None
        with anyio.move_on_after(_SURVEY_TIMEOUT_S):
            try:
                devices = await runner.devices()
                if devices is None:
                    return None
                return DeviceSurvey(devices=devices, machine=await runner.machine_id())
            except GglibError:
                raise
            except Exception as error:  # a stranger's runner
                reason = f"its memory cannot be read: {type(error).__name__}: {error}"
                raise AdapterError("gglib.process_runners", name, reason) from error
        raise NodeUnreachable(
            name,
            "shell",
            f"it has not told its memory within {_SURVEY_TIMEOUT_S:g} s",
            f"gglib doctor --runner {name}",
        )

    async def memory(self, name: str, handle: ProcessHandle) -> ServerMemory | None:
        """Return what a runner's server has of its machine's memory, if that can be told now."""
        runner = self._runners.get(name)
        if runner is None:
            return None
        # What a stranger's runner raises is no worse than that it cannot tell.
        with anyio.move_on_after(_SURVEY_TIMEOUT_S), suppress(Exception):
            return await runner.memory(handle)
        return None

    async def as_it_lies(self, model: Model, name: str) -> Model:
        """Return the model with what its file says on the machine of the runner ``name``.

        Of a model that was added there that is known; that of others is read, once it can be.
        Until then the model is returned as it is.

        Raises:
            NodeUnreachable: nobody there answers.
        """
        files = self.files(name)
        if files is None or model.origin.runner == name:
            return model
        read = self._read.get((name, model.path))
        if read is None:
            read = await self._located(model, files)
            if read is None:
                return model
            self._read[name, model.path] = read
        return attrs.evolve(
            model,
            paths=read.paths,
            size_bytes=read.size_bytes,
            facts=read.facts,
            mmproj_path=read.mmproj_path,
        )

    async def _located(self, model: Model, files: FarFiles) -> Model | None:
        try:
            source = self._source.elsewhere(files)
            located = await source.locate(str(model.path))
        except (ModelError, NotConfigured):
            return None
        path = located.paths[0]
        projector = choose_projector(path, located.facts, await source.projectors(path.parent))
        return attrs.evolve(
            model,
            paths=located.paths,
            size_bytes=located.size_bytes,
            facts=with_projector(located.facts, projector),
            mmproj_path=None if projector is None else projector.path,
        )
