"""Parts that exist on paper, for tests without files, programs and a network."""

from __future__ import annotations

from pathlib import Path

from gglib.domain.config import ServerConfig
from gglib.domain.device import CPU, Device, DeviceSurvey
from gglib.domain.model import Capability, ModelFacts
from gglib.errors import ModelFileMissing
from gglib.ports.device_inventory import DeviceInventory
from gglib.ports.engine import Engine, EngineCapabilities, EngineProbe
from gglib.ports.model_source import LocatedModel, ModelSource
from gglib.ports.server_client import ServerClient, ServerProps
from gglib_adapters.runners.mock import MockRunner

__all__ = ["MockDeviceInventory", "MockEngine", "MockModelSource", "MockServerClient"]


class MockEngine(Engine):
    """An engine that is always there and can do everything. Its command is not to be run."""

    @property
    def name(self) -> str:
        """See ``Engine``."""
        return "mock"

    @property
    def capabilities(self) -> EngineCapabilities:
        """See ``Engine``."""
        return EngineCapabilities(
            slots=True,
            lora=True,
            embeddings=True,
            metrics=True,
            context_size=True,
            answers_while_busy=True,
        )

    async def probe(self) -> EngineProbe:
        """See ``Engine``."""
        return EngineProbe(path=None, version="1", source="package")

    def command(self, config: ServerConfig, port: int) -> list[str]:
        """Return a command line that names the model and the port."""
        return ["mock-engine", config.model_name, "--port", str(port), *config.extra_args]


class MockDeviceInventory(DeviceInventory):
    """A machine with nothing but memory: ``total_bytes`` of it, all free, 64 GiB by default."""

    def __init__(self, total_bytes: int = 64 << 30) -> None:
        self.total_bytes = total_bytes

    async def survey(self) -> DeviceSurvey:
        """See ``DeviceInventory``."""
        size = self.total_bytes
        return DeviceSurvey(devices=[Device(name=CPU, kind=CPU, total_bytes=size, free_bytes=size)])


class MockModelSource(ModelSource):
    """Finds a model under every path, but those in ``missing``; reads nothing."""

    def __init__(self, *, missing: tuple[str, ...] = ()) -> None:
        self.missing = set(missing)

    async def locate(self, reference: str) -> LocatedModel:
        """Return a small chat model named after the file."""
        path = Path(reference).absolute()  # noqa: ASYNC240 - asks the working directory alone
        if reference in self.missing:
            raise ModelFileMissing(path)
        text = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.EMBEDDING})
        return LocatedModel(
            paths=(path,),
            size_bytes=1 << 20,
            facts=ModelFacts(architecture="llama", capabilities=text),
            suggested_name=path.stem,
        )


class MockServerClient(ServerClient):
    """Knows what the servers of a mock runner would tell, and asks nobody.

    That is what their scripts say, else their configurations; what neither says is unknown.
    """

    def __init__(self, runner: MockRunner) -> None:
        self._runner = runner

    async def props(
        self, base_url: str, api_key: str | None, *, ca_file: str | None = None
    ) -> ServerProps:
        """Return what the server there has in its script; nothing if there is none."""
        del api_key, ca_file
        return self._runner.props(base_url)
