"""Health checks that prove who answers."""

from __future__ import annotations

import anyio
import anyio.to_thread
import attrs

from gglib.domain.handle import ProcessHandle
from gglib.domain.health import ServerHealth
from gglib.ports.context import AdapterContext
from gglib_adapters.probing import HttpProbe
from gglib_adapters.runners.local import identity
from gglib_adapters.runners.local.groups import Family
from gglib_adapters.runners.local.identity import Site
from gglib_adapters.runners.local.ports import foreign_holder

__all__ = ["Checkup"]


@attrs.define
class _Patient:
    path: str
    statuses: frozenset[int]
    proven: bool = False
    last_check: float | None = None


class Checkup:
    """Asks servers how they are and remembers, per server, what is known for certain."""

    __slots__ = ("_engines", "_limiter", "_patients", "_probe", "_site")

    def __init__(
        self,
        context: AdapterContext,
        *,
        timeout_s: float,
        site: Site,
        limiter: anyio.CapacityLimiter,
    ) -> None:
        self._engines = context.engines
        self._limiter = limiter
        self._site = site
        self._probe = HttpProbe(clock=context.clock, timeout_s=timeout_s)
        self._patients: dict[str, _Patient] = {}

    async def health(self, handle: ProcessHandle, engine: str | None) -> ServerHealth:
        """Return how the running server of ``handle`` is.

        ``engine``: the name of its engine; ``None`` = read it from what the server carries.
        """
        patient = self._patients.get(handle.server_id)
        if patient is None:
            patient = await self._admit(handle, engine)
        answer = await self._probe.probe(
            handle.base_url,
            path=patient.path,
            statuses=patient.statuses,
            ca_file=handle.ca_file,
        )
        if not answer.healthy:
            return attrs.evolve(answer, last_check=patient.last_check)
        if not patient.proven:
            holder = await anyio.to_thread.run_sync(
                self._foreign_holder, handle, limiter=self._limiter
            )
            if holder is not None:
                return ServerHealth.unhealthy(
                    f"port {handle.port} is held by {holder}", port_held_by=holder
                )
            patient.proven = True
        patient.last_check = answer.last_check
        return answer

    def forget(self, handle: ProcessHandle) -> None:
        """Drop what is known of a server that is gone."""
        self._patients.pop(handle.server_id, None)

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._probe.aclose()

    async def _admit(self, handle: ProcessHandle, name: str | None) -> _Patient:
        if name is None and handle.pid is not None:
            name = await anyio.to_thread.run_sync(
                identity.carried_engine, handle.pid, limiter=self._limiter
            )
        if name is not None and name in self._engines:
            engine = self._engines[name]
            patient = _Patient(engine.health_path, engine.health_statuses)
        else:
            patient = _Patient("/health", frozenset({200}))
        return self._patients.setdefault(handle.server_id, patient)

    def _foreign_holder(self, handle: ProcessHandle) -> str | None:
        leader = identity.leader_of(handle, self._site)
        if leader is None:
            return None
        # Nearly always the leader itself listens, and the machine need not be searched.
        holder = foreign_holder(handle.port, [leader.pid])
        if holder is None:
            return None
        family = Family(handle.server_id, leader)
        return foreign_holder(handle.port, [process.pid for process in family.members()])
