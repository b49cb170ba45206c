"""Health checks through the forward, which prove once for each connection who answers."""

from __future__ import annotations

import math

import anyio
import attrs

from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.errors import NodeUnreachable, NotRunning
from gglib.ports.context import AdapterContext
from gglib.ports.engine import Engine
from gglib_adapters.probing import HttpProbe
from gglib_adapters.runners.ssh.far_servers import FarServers
from gglib_adapters.runners.ssh.link import Link
from gglib_adapters.runners.ssh.openssh import Step

__all__ = ["Checkup"]


@attrs.define
class _Patient:
    path: str = "/health"
    statuses: frozenset[int] = frozenset({200})
    proven_through: int | None = None
    """The connection through which the one who answers was last known to be the server."""
    last_check: float | None = None


class Checkup:
    """Asks servers how they are. A machine that cannot be reached is no proof of an end."""

    __slots__ = ("_context", "_link", "_node", "_patients", "_probe", "_servers", "_timeout_s")

    def __init__(
        self,
        context: AdapterContext,
        link: Link,
        servers: FarServers,
        *,
        node: str,
        timeout_s: float,
    ) -> None:
        self._context = context
        self._link = link
        self._servers = servers
        self._node = node
        self._timeout_s = timeout_s
        self._probe = HttpProbe(clock=context.clock, timeout_s=timeout_s)
        self._patients: dict[ProcessHandle, _Patient] = {}

    def admit(self, handle: ProcessHandle, engine: Engine | None) -> None:
        """Remember how the server is asked."""
        patient = _Patient()
        if engine is not None:
            patient = _Patient(engine.health_path, engine.health_statuses)
        self._patients.setdefault(handle, patient)

    async def health(self, handle: ProcessHandle) -> ServerHealth:
        """Return how the server is; unhealthy while its machine cannot be reached.

        Of a machine that was there, an answer is soon expected: one that has fallen silent is
        told as out of reach long before ssh gives it up.

        Raises:
            NotRunning: its machine says that it is not running.
        """
        limit_s = 2 * self._timeout_s if self._link.has_been_up else math.inf
        with anyio.move_on_after(limit_s):
            return await self._examined(handle)
        silent = NodeUnreachable(
            self._node, Step.CONNECT, f"no answer within {limit_s:g} s", "the line may be down"
        )
        return self._away(silent, self._patients.get(handle))

    async def _examined(self, handle: ProcessHandle) -> ServerHealth:
        patient = self._patients.get(handle)
        try:
            if patient is None:
                patient = await self._found(handle)
            await self._link.machine()
            await self._link.lead_again(handle.server_id, handle.port)
            answer = await self._probe.probe(
                handle.base_url, path=patient.path, statuses=patient.statuses
            )
            if answer.healthy and patient.proven_through != self._link.times_made:
                answer = await self._proven(handle, patient, answer)
            elif not answer.healthy:
                await self._require(handle)
        except NodeUnreachable as error:
            return self._away(error, patient)
        if not answer.healthy:
            return attrs.evolve(answer, last_check=patient.last_check)
        patient.last_check = answer.last_check
        return answer

    def forget(self, handle: ProcessHandle) -> None:
        """Drop what is known of a server that is gone."""
        self._patients.pop(handle, None)

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._probe.aclose()

    @staticmethod
    def _away(error: NodeUnreachable, patient: _Patient | None) -> ServerHealth:
        last_check = patient.last_check if patient is not None else None
        return ServerHealth.unhealthy(str(error), last_check=last_check, is_out_of_reach=True)

    async def _found(self, handle: ProcessHandle) -> _Patient:
        for server in await self._servers.all():
            if server.running and server.handle == handle:
                engines = self._context.engines
                known = server.engine is not None and server.engine in engines
                self.admit(handle, engines[server.engine] if known and server.engine else None)
                return self._patients[handle]
        raise NotRunning(handle.model_name)

    async def _proven(
        self, handle: ProcessHandle, patient: _Patient, answer: ServerHealth
    ) -> ServerHealth:
        through = self._link.times_made
        holder = await self._servers.holder(handle)
        if holder == "gone":
            self.forget(handle)
            raise NotRunning(handle.model_name)
        if holder == "nobody":
            return ServerHealth.unhealthy("not listening yet")
        if holder != "own":
            name = holder.removeprefix("other ") or "somebody else"
            return ServerHealth.unhealthy(
                f"port {handle.port} is held by {name}", port_held_by=name
            )
        patient.proven_through = through
        return answer

    async def _require(self, handle: ProcessHandle) -> None:
        state = await self._servers.state(handle.server_id)
        if not (state.running and state.is_of(handle)):
            self.forget(handle)
            raise NotRunning(handle.model_name)
