"""Settings read anew while the gateway runs: what has changed is taken up, all of it or nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import attrs

from gglib.bootstrap import Composition, declarations_of, policy_of
from gglib.domain.events import ConfigModelMissed, ConfigReloaded, ConfigReloadFailed
from gglib.domain.model import Model, names_of_runners
from gglib.errors import ConfigurationError, Forbidden, GglibError, InvalidValue
from gglib.gateway.certificate import Certificate, ServerTls, read_certificate
from gglib.gateway.listener import is_loopback
from gglib.gateway.name_doubts import name_doubts
from gglib.gateway.relay.body_rules import RuleBook
from gglib.gateway.relay.limits import Limits
from gglib.gateway.relay.shared import RelayShared
from gglib.services.models import Declared, ModelService
from gglib.services.pool import Pool
from gglib.services.routing.planners import Planner
from gglib.services.routing.router import Router
from gglib.services.serving import ServingService
from gglib.settings import GatewaySettings, Settings
from gglib.settings.difference import Difference, difference, while_running
from gglib.settings.watch import FileWatch

__all__ = ["Reloader", "check_exposure", "door_terms", "limits_of", "session_header_of"]

#: What is told to have changed when a file has, and its name has not.
_CERTIFICATE = "gateway.tls_certificate"
#: How often a watched file is looked at.
_LOOK_INTERVAL_S = 1.0


def check_exposure(settings: GatewaySettings) -> None:
    """Return unless strangers could use a gateway of these settings.

    Raises:
        Forbidden: the address is not loopback, and there is neither a key nor ``insecure``.
    """
    has_key = settings.api_keys or settings.keys
    if not (is_loopback(settings.host) or has_key or settings.insecure):
        raise Forbidden(
            f"host {settings.host} can be reached from other machines and no key is set; "
            "set [gateway] api_keys or [gateway.keys.NAME], or say --insecure"
        )


def door_terms(settings: GatewaySettings, certificate: Certificate | None) -> dict[str, Any]:
    """Return by what the doors admit. Who may show a certificate for a name is called so."""
    certified = () if certificate is None else certificate.names
    return {
        "api_keys": settings.api_keys,
        "keys": {key.digest: key.grant for key in settings.keys.values()},
        "own_names": (settings.host, socket.gethostname(), *settings.allowed_hosts, *certified),
        "allowed_origins": settings.allowed_origins,
    }


def limits_of(settings: GatewaySettings) -> Limits:
    """Return the bounds of every connection."""
    return Limits(
        max_body_bytes=settings.max_body_bytes,
        max_header_bytes=settings.max_header_bytes,
        header_timeout_s=settings.header_timeout_s,
        keep_alive_s=settings.keep_alive_s,
        stall_timeout_s=settings.stall_timeout_s,
        silence_timeout_s=settings.silence_timeout_s,
        keepalive_comment_s=settings.keepalive_comment_s,
    )


def session_header_of(settings: GatewaySettings) -> bytes:
    """Return the header that names a request's session, as connections look for it."""
    return settings.session_header.lower().encode("ascii")


def _files(settings: Settings) -> tuple[Path, ...]:
    """Return the files that settings are read from."""
    gateway = settings.gateway
    files = (settings.config_file, gateway.tls_certificate, gateway.tls_key)
    return tuple(dict.fromkeys(file for file in files if file is not None))


@attrs.frozen(kw_only=True)
class _Plan:
    """New settings, with everything made that can fail to be."""

    settings: Settings
    planner: Planner
    declared: Declared
    gone: list[Model]
    """Models that nobody can name any more."""
    changed: list[Model]
    """Models that are new, or otherwise than before."""
    certificate: Certificate | None


class Reloader:
    """Keeps a running gateway to its settings, which others may change.

    What can fail is done first. Then everything is taken up without a pause, so that no
    request meets half of it.
    """

    def __init__(
        self,
        parts: Composition,
        reread: Callable[[], Settings],
        *,
        shared: RelayShared,
        models: ModelService,
        serving: ServingService,
        router: Router,
        pool: Pool,
        tls: ServerTls | None = None,
    ) -> None:
        """``reread`` reads the settings from where the present ones came from; it may block."""
        self._parts = parts
        self._reread = reread
        self._shared = shared
        self._models = models
        self._serving = serving
        self._router = router
        self._pool = pool
        self._tls = tls
        self._settings = parts.settings
        self._one_at_a_time = anyio.Lock()
        self._callbacks: list[Callable[[GatewaySettings], None]] = []
        self._certificate_callbacks: list[Callable[[Certificate], None]] = []
        self._watch = FileWatch(*_files(parts.settings))

    def on_applied(self, callback: Callable[[GatewaySettings], None]) -> None:
        """Have ``callback(settings)`` called when new settings hold; it must not raise."""
        self._callbacks.append(callback)

    def on_new_certificate(self, callback: Callable[[Certificate], None]) -> None:
        """Have ``callback(certificate)`` called when another one is shown; it must not raise."""
        self._certificate_callbacks.append(callback)

    async def reload(self) -> Difference:
        """Read the settings anew, take up what has changed, and return it.

        Raises:
            ConfigurationError: they are wrong; the old ones stay, all of them.
            GglibError: the catalog cannot be read; the same.
        """
        clock, events = self._parts.clock, self._parts.events
        async with self._one_at_a_time:
            try:
                found = await self._reload()
            except Exception as error:
                reason = str(error) if isinstance(error, GglibError) else repr(error)
                events.emit(ConfigReloadFailed(at=clock.now(), reason=reason))
                raise
            events.emit(
                ConfigReloaded(at=clock.now(), changed=found.now, at_next_start=found.at_next_start)
            )
            return found

    def tell_doubts(self, settings: Settings) -> tuple[str, ...]:
        """Tell of names in ``settings`` that are no model's now; return that in words."""
        doubts = name_doubts(settings, self._models.known.values())
        for doubt in doubts:
            self._parts.events.emit(
                ConfigModelMissed(
                    at=self._parts.clock.now(),
                    key=doubt.key,
                    model_name=doubt.name,
                    reason=doubt.reason,
                )
            )
        return tuple(map(str, doubts))

    async def try_reload(self) -> None:
        """Reload for somebody who hears of it by its events alone."""
        with suppress(Exception):
            await self.reload()

    async def watch(self) -> None:
        """Reload when a file has changed and ``watch_config`` is set, for ever."""
        while True:
            await self._parts.clock.sleep(_LOOK_INTERVAL_S)
            if self._settings.gateway.watch_config and self._watch.has_changed():
                await self.try_reload()

    async def _reload(self) -> Difference:
        self._watch.note_reading()
        asked = await anyio.to_thread.run_sync(self._reread)
        before = self._settings
        if before.config_file is not None and asked.config_file is None:
            raise ConfigurationError(
                "the settings file is gone; put it back, or start the gateway anew without it",
                str(before.config_file),
            )
        found = difference(before, asked)
        unopened = await self._unopened_runners(asked)
        plan = await self._plan(while_running(before, asked))
        if self._apply(plan) and _CERTIFICATE not in found.now:
            found = attrs.evolve(found, now=(*found.now, _CERTIFICATE))
        routing, pool = plan.settings.routing, plan.settings.pool
        await self._pool.change(
            health_check_interval_s=pool.health_check_interval_s, limits=routing.budgets
        )
        return attrs.evolve(
            found,
            at_next_start=(*found.at_next_start, *unopened),
            doubts=self.tell_doubts(asked),
        )

    async def _plan(self, settings: Settings) -> _Plan:
        """Make everything that can fail to be made.

        Raises:
            ConfigurationError: it cannot be done by these settings.
            StorageError: the catalog cannot be read.
        """
        try:
            check_exposure(settings.gateway)
            planner = self._pool.planner(settings.routing, settings.pool, settings.routing.budgets)
        except (Forbidden, InvalidValue, ConfigurationError) as error:
            source = settings.config_file
            raise ConfigurationError(str(error), None if source is None else str(source)) from None
        certificate = await anyio.to_thread.run_sync(read_certificate, settings.gateway)
        declared = await self._models.declare(declarations_of(settings))
        before = {model.id: model for model in self._models.known.values()}
        after = {model.id: model for model in declared.models.values()}
        changed = [model for model in after.values() if before.get(model.id) != model]
        return _Plan(
            settings=settings,
            planner=planner,
            declared=declared,
            gone=[model for model in before.values() if model.id not in after],
            changed=changed,
            certificate=certificate,
        )

    def _apply(self, plan: _Plan) -> bool:
        """Take up a plan; nothing here waits, or fails. Return whether the certificate is new."""
        settings, gateway = plan.settings, plan.settings.gateway
        self._models.take_up(plan.declared)
        self._router.set_policy(policy_of(settings), plan.planner, settings.pool.ttl_s)
        for model in plan.gone:
            self._router.retire(model)
        for model in plan.changed:
            self._router.change(model)
        self._serving.change(start_timeout_s=gateway.start_timeout_s)
        self._shared.doors.change(**door_terms(gateway, plan.certificate))
        self._shared.limits = limits_of(gateway)
        self._shared.session_header = session_header_of(gateway)
        self._shared.loading_state = gateway.loading_state
        self._shared.meter.set_log(self._parts.events.emit if gateway.access_log else None)
        self._shared.rule_book = RuleBook(settings.inference)
        self._settings = settings
        if (files := _files(settings)) != self._watch.paths:
            self._watch = FileWatch(*files)
        for callback in self._callbacks:
            callback(gateway)
        return self._show(plan.certificate)

    def _show(self, certificate: Certificate | None) -> bool:
        """Show the certificate from now on; return whether it is another one."""
        tls = self._tls
        if tls is None or certificate is None:
            return False
        is_another = certificate.pem != tls.certificate.pem
        # The same one may have another key file, or other authorities behind it.
        tls.change(certificate)
        if not is_another:
            return False
        for callback in self._certificate_callbacks:
            callback(certificate)
        return True

    async def _unopened_runners(self, settings: Settings) -> list[str]:
        """Return the keys of models whose runner is not open, and will be at the next start."""
        runners = await self._parts.runners()
        return [
            f"models.{name}.runner"
            for name, model in settings.models.items()
            if not all(
                runner in runners or runner in runners.broken
                for runner in names_of_runners(model.runner)
            )
        ]
