"""The engine as it is on the far machine."""

from __future__ import annotations

from gglib.errors import EngineNotFound
from gglib.ports.context import EngineSet
from gglib.ports.engine import Engine
from gglib_adapters.runners.ssh.link import Link

__all__ = ["FarEngines"]

#: The engine whose program is looked for there; it is also meant when nobody says which.
_LLAMA_SERVER = "llama-server"
#: A program that loads a driver takes its time to say what it can do.
_ASK_S = 30.0


class FarEngines:
    """Asks the far llama-server for its flags, once for each that is found there."""

    __slots__ = ("_asked", "_link", "_node", "_path")

    def __init__(self, link: Link, *, node: str, path: str) -> None:
        self._link = link
        self._node = node
        self._path = path
        self._asked: tuple[str, Engine] | None = None

    async def get(self, engines: EngineSet, name: str | None) -> Engine:
        """Return the engine ``name``, found there; without a name it is the llama-server.

        Raises:
            EngineNotFound: there is none.
            EngineCannot: it is one that only this machine has.
            AdapterError: it is broken.
            NodeUnreachable: the machine cannot be reached.
        """
        if name is not None and name != _LLAMA_SERVER:
            return engines[name].elsewhere(self._node, "", "")
        return await self.llama_server(engines)

    async def llama_server(self, engines: EngineSet) -> Engine:
        """Return the far llama-server; see ``get``."""
        found = await self._link.ask("gglib_find_program", self._path)
        path = found.partition("\n")[0]
        if path in ("", "none"):
            reason = f"there is no program '{self._path}' on {self._node}"
            ways = (f"install llama.cpp on {self._node}", "set engine_path of the runner")
            raise EngineNotFound(_LLAMA_SERVER, reason, ways)
        if self._asked is None or self._asked[0] != found:
            said = await self._link.ask("gglib_ask_program", path, "--help", timeout_s=_ASK_S)
            self._asked = found, engines[_LLAMA_SERVER].elsewhere(self._node, path, said)
        return self._asked[1]
