"""Every error gglib raises on purpose, in one tree.

::

    GglibError
    ├── InvalidValue (ValueError)       a domain value out of its range
    ├── InvalidRequest                  a request that cannot be served as written
    ├── ConfigurationError              a settings file, variable or flag that is wrong
    ├── NotConfigured                   a part that is switched off
    ├── ModelError
    │   ├── ModelNotFound               no such name (with close names)
    │   ├── AmbiguousModel              several models answer to the name
    │   ├── ModelExists                 the name is taken
    │   ├── ModelFileMissing            the file is not there
    │   ├── InvalidModelFile            the file is not a model we can read
    │   └── HubError                    a hub of models
    │       ├── RepositoryNotFound      it has no such repository, or revision
    │       ├── QuantizationNotFound    the repository has no such model
    │       ├── HubAccessDenied         it wants a token, or another one
    │       ├── HubUnavailable          it does not answer as it should, now
    │       └── HubAnswerWrong          what it says cannot be true
    ├── EngineError
    │   ├── EngineNotFound              no such engine here (with the ways to get one)
    │   ├── EngineCannot                this engine cannot express that intent
    │   ├── EngineInstallFailed         nothing was installed
    │   ├── EngineInUse                 it runs, and cannot be removed
    │   └── EngineDied                  it was serving and is gone
    ├── ServerError
    │   ├── NotRunning                  the server is not running
    │   ├── StartFailed                 it exited while starting
    │   ├── StartTimeout                it was not ready in time
    │   ├── ServerUntrusted             its certificate is not one to trust
    │   ├── PortInUse                   somebody else listens there
    │   ├── StopFailed                  it survived SIGKILL
    │   ├── NodeUnreachable             the machine it is on cannot be reached
    │   ├── NotStarted                  none of its runners could start it
    │   ├── DoesNotFit                  not enough memory
    │   ├── NoRoom                      pinned models keep every place it could have
    │   └── BreakerOpen                 its last start failed a moment ago
    ├── AdmissionError
    │   ├── QueueFull                   too many wait already
    │   ├── QueueTimeout                waited too long
    │   ├── Unloaded                    its model was unloaded while it waited
    │   ├── ShuttingDown                nothing new is accepted
    │   ├── Unauthorized                no valid key
    │   ├── Forbidden                   a valid key without that right
    │   └── RateLimited                 over the key's limit
    ├── DownloadError
    │   ├── DownloadFailed              it could not be fetched, now
    │   ├── DownloadNotFound            the server has no such file
    │   ├── DownloadRefused             the server will not give it
    │   └── HashMismatch                another file came than was asked for
    ├── StorageError
    │   ├── DataDirectoryUnusable       cannot be created or written
    │   ├── DatabaseCorrupt             not a database, or damaged
    │   ├── DatabaseTooNew              written by a newer gglib
    │   └── NoSpace                     the disk has no room for it
    ├── PullNotFound                    no such pull is on record
    ├── PullFailed                      a gateway could not fetch a model
    ├── GatewayRunning                  another gateway owns the data directory
    ├── GatewayNotRunning               no gateway owns it
    ├── GatewayUnreachable              it should answer and does not
    └── AdapterError                    a plug-in is missing or broken

Fields are attributes, ``str()`` says what happened, to which thing, and what to do next.
No HTTP status lives here: ``gglib.gateway.problems`` maps each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

import attrs

__all__ = [
    "AdapterError",
    "AdmissionError",
    "AmbiguousModel",
    "BreakerOpen",
    "ConfigurationError",
    "DataDirectoryUnusable",
    "DatabaseCorrupt",
    "DatabaseTooNew",
    "DoesNotFit",
    "DownloadError",
    "DownloadFailed",
    "DownloadNotFound",
    "DownloadRefused",
    "EngineCannot",
    "EngineDied",
    "EngineError",
    "EngineInUse",
    "EngineInstallFailed",
    "EngineNotFound",
    "Forbidden",
    "GatewayNotRunning",
    "GatewayRunning",
    "GatewayUnreachable",
    "GglibError",
    "HashMismatch",
    "HubAccessDenied",
    "HubAnswerWrong",
    "HubError",
    "HubUnavailable",
    "InvalidModelFile",
    "InvalidRequest",
    "InvalidValue",
    "ModelError",
    "ModelExists",
    "ModelFileMissing",
    "ModelNotFound",
    "NoRoom",
    "NoSpace",
    "NodeUnreachable",
    "NotConfigured",
    "NotRunning",
    "NotStarted",
    "PortInUse",
    "PullFailed",
    "PullNotFound",
    "QuantizationNotFound",
    "QueueFull",
    "QueueTimeout",
    "RateLimited",
    "RepositoryNotFound",
    "ServerError",
    "ServerUntrusted",
    "ShuttingDown",
    "StartFailed",
    "StartTimeout",
    "StopFailed",
    "StorageError",
    "Unauthorized",
    "Unloaded",
]


E = TypeVar("E", bound="GglibError")


def _rebuild(cls: type[GglibError], fields: dict[str, Any]) -> GglibError:
    return cls(**fields)


class GglibError(Exception):
    """The root. ``retryable``: the same call may succeed later, unchanged."""

    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        cls: type = type(self)
        names = [field.name for field in attrs.fields(cls)] if attrs.has(cls) else []
        return _rebuild, (type(self), {name: getattr(self, name) for name in names})


@dataclass_transform(field_specifiers=(attrs.field,))
def _error(cls: type[E]) -> type[E]:
    return attrs.define(cls, eq=False, slots=False, repr=False, str=False)


#: Requests carry names and values of any length; a message stays readable.
_MAX_SHOWN = 200
_MAX_NAMED = 5


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _names(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


@_error
class InvalidValue(GglibError, ValueError):
    """A domain value outside its range."""

    field: str
    value: object
    expected: str

    def __str__(self) -> str:
        return f"{self.field} is {_shown(self.value)}; expected {self.expected}"


@_error
class InvalidRequest(GglibError):
    """A request that cannot be served as written; ``param`` names the field at fault."""

    message: str
    param: str | None = None
    code: str | None = None

    def __str__(self) -> str:
        return self.message


@_error
class ConfigurationError(GglibError):
    """A setting that is unknown or wrong; says where it was read and what would be right."""

    message: str
    source: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = self.source or ""
        if self.line is not None:
            where = f"{where}:{self.line}" if where else f"line {self.line}"
        return f"{where}: {self.message}" if where else self.message


@_error
class NotConfigured(GglibError):
    """A part of gglib that is switched off here."""

    part: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.part} is not configured; {self.remedy}"


class ModelError(GglibError):
    """Something is wrong with a model's name or file."""


@_error
class ModelNotFound(ModelError):
    """No model of that name."""

    name: str
    close_names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.close_names:
            return f"no model named {_shown(self.name)}; did you mean {_names(self.close_names)}?"
        return f"no model named {_shown(self.name)}; `gglib model list` shows the ones there are"


@_error
class AmbiguousModel(ModelError):
    """Several models answer to the name."""

    name: str
    candidates: tuple[str, ...]

    def __str__(self) -> str:
        return f"'{self.name}' could be {_names(self.candidates)}; use the full name"


@_error
class ModelExists(ModelError):
    """The name or alias is taken."""

    name: str
    holder: str

    def __str__(self) -> str:
        return (
            f"the name '{self.name}' is taken by model '{self.holder}'; "
            "choose another, or remove that one first"
        )


@_error
class ModelFileMissing(ModelError):
    """The model's file is not there."""

    path: Path
    known_sources: tuple[str, ...] = ()
    """Where else models come from, if the path may have meant such a place."""
    others_missing: tuple[Path, ...] = ()
    """Of a model in several files: the others that are not there either."""

    def __str__(self) -> str:
        others = [path.name for path in self.others_missing[:_MAX_NAMED]]
        more = len(self.others_missing) - len(others)
        nor = f", nor {', '.join(others)}" if others else ""
        nor += f" and {more} more" if more else ""
        if self.known_sources:
            known = ", ".join(self.known_sources)
            return f"{self.path}: no such file{nor}, and no such source; known sources: {known}"
        return f"{self.path}: no such file{nor}; check the path"


@_error
class InvalidModelFile(ModelError):
    """The file is there and is not a model gglib can read."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@_error
class HubError(ModelError):
    """A hub of models cannot, or will not, give what was asked for."""

    message: str

    def __str__(self) -> str:
        return self.message


@_error
class RepositoryNotFound(HubError):
    """The hub has no such repository, or the repository no such revision."""


@_error
class QuantizationNotFound(HubError):
    """The repository has no such model, or none that fits."""


@_error
class HubAccessDenied(HubError):
    """The hub wants a token, or another one; the message says how to get it."""


@_error
class HubUnavailable(HubError):
    """The hub does not answer as it should, now."""

    retryable: ClassVar[bool] = True
    retry_after_s: float | None = None


@_error
class HubAnswerWrong(HubError):
    """What the hub says cannot be true; nothing of it was used."""


class EngineError(GglibError):
    """Something is wrong with an engine."""


@_error
class EngineNotFound(EngineError):
    """No such engine on this machine; ``ways`` says how to get one."""

    engine: str
    reason: str
    ways: tuple[str, ...] = ()

    def __str__(self) -> str:
        ways = "; or ".join(self.ways)
        return f"engine '{self.engine}' not found: {self.reason}" + (f". {ways}" if ways else "")


@_error
class EngineCannot(EngineError):
    """This engine cannot express that intent; nothing was started."""

    engine: str
    field: str
    value: object
    remedy: str

    def __str__(self) -> str:
        return (
            f"engine '{self.engine}' has no way to set {self.field} = {self.value!r}; {self.remedy}"
        )


@_error
class EngineInstallFailed(EngineError):
    """A version of an engine could not be installed; what was there is as it was."""

    engine: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} of engine '{self.engine}' was not installed: {self.reason}"


@_error
class EngineInUse(EngineError):
    """A version of an engine runs, and was not removed."""

    engine: str
    version: str
    pids: tuple[int, ...]

    def __str__(self) -> str:
        pids = ", ".join(str(pid) for pid in self.pids)
        return (
            f"{self.version} of engine '{self.engine}' is in use by pid {pids}; "
            "`gglib ps` shows whose it is, `gglib stop` ends it"
        )


@_error
class EngineDied(EngineError):
    """The engine was serving and is gone."""

    retryable: ClassVar[bool] = True
    model: str
    detail: str

    def __str__(self) -> str:
        return f"the engine of model '{self.model}' died: {self.detail}"


class ServerError(GglibError):
    """Something is wrong with one running, or starting, server."""


@_error
class NotRunning(ServerError):
    """The server is not running; nothing was changed."""

    server: str

    def __str__(self) -> str:
        return f"'{self.server}' is not running; `gglib ps` shows what is"


@_error
class StartFailed(ServerError):
    """The server exited, or could not be spawned, before it was ready."""

    retryable: ClassVar[bool] = True
    model: str
    exit_status: int | None
    log_tail: tuple[str, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        if self.reason is not None:
            what = self.reason
        elif self.exit_status is None:
            what = "the engine ended"
        elif self.exit_status < 0:
            what = f"the engine was killed by signal {-self.exit_status}"
        else:
            what = f"the engine exited with status {self.exit_status}"
        last = next((line for line in reversed(self.log_tail) if line.strip()), None)
        said = f"; its last line: {last.strip()}" if last else ""
        return f"model '{self.model}' did not start: {what}{said}"


@_error
class StartTimeout(ServerError):
    """The server was not ready in time; it has been stopped."""

    retryable: ClassVar[bool] = True
    model: str
    timeout_s: float
    log_tail: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"model '{self.model}' was not ready within {self.timeout_s:g} s and was stopped; "
            "a larger start_timeout_s gives it longer"
        )


@_error
class ServerUntrusted(ServerError):
    """The server's certificate is refused; nothing was sent to it."""

    address: str
    reason: str

    def __str__(self) -> str:
        return (
            f"the certificate of {self.address} is not trusted: {self.reason}; "
            "ca_file of its engine says whose certificates it has"
        )


@_error
class PortInUse(ServerError):
    """Somebody else listens on the port."""

    port: int
    holder: str | None = None

    def __str__(self) -> str:
        by = f" by {self.holder}" if self.holder else ""
        return f"port {self.port} is in use{by}; choose another with --port"


@_error
class StopFailed(ServerError):
    """The server was killed and did not go away."""

    server: str
    pids: tuple[int, ...]

    def __str__(self) -> str:
        pids = ", ".join(str(pid) for pid in self.pids)
        return f"'{self.server}' did not end: still there after SIGKILL: pid {pids}"


def _size(size_bytes: int) -> str:
    if size_bytes < 1024**3:
        return f"{size_bytes / 1024**2:.0f} MiB"
    return f"{size_bytes / 1024**3:.1f} GiB"


@_error
class NodeUnreachable(ServerError):
    """The machine cannot be reached: what runs there is not known, and may run on."""

    retryable: ClassVar[bool] = True
    node: str
    step: str
    """How far the way there led: ``connect``, ``host key``, ``auth`` …"""
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.node} cannot be reached ({self.step}): {self.reason}; {self.fix}"


@_error
class NotStarted(ServerError):
    """None of the model's runners could start a server of it."""

    retryable: ClassVar[bool] = True
    model: str
    reasons: tuple[str, ...]
    """Of each runner why not, its name first."""

    def __str__(self) -> str:
        return f"model '{self.model}' was started nowhere: {'; '.join(self.reasons)}"


@_error
class DoesNotFit(ServerError):
    """Not enough memory for the model, even with everything evictable gone."""

    model: str
    needed_bytes: int
    available_bytes: int
    device: str

    def __str__(self) -> str:
        return (
            f"model '{self.model}' does not fit: needs {_size(self.needed_bytes)}, "
            f"{self.device} has {_size(self.available_bytes)}; "
            "a smaller context_size or quantization needs less, "
            f"`gglib model fit {self.model}` shows how much"
        )


@_error
class NoRoom(ServerError):
    """Pinned models keep every place that the model could have."""

    model: str
    pinned: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        shown = ", ".join(f"'{name}'" for name in self.pinned)
        return (
            f"model '{self.model}' has no place beside the pinned {shown}: {self.reason}; "
            "unpin or unload one"
        )


@_error
class BreakerOpen(ServerError):
    """The model's last start failed a moment ago; the next is not tried yet."""

    retryable: ClassVar[bool] = True
    model: str
    failure: str
    retry_after_s: float

    def __str__(self) -> str:
        return (
            f"model '{self.model}' failed to start a moment ago ({self.failure}); "
            f"it may be tried again in {self.retry_after_s:.0f} s"
        )


class AdmissionError(GglibError):
    """A request that was not let in, or not served."""


@_error
class QueueFull(AdmissionError):
    """Too many wait for the model already."""

    retryable: ClassVar[bool] = True
    model: str
    limit: int
    retry_after_s: float

    def __str__(self) -> str:
        return (
            f"the queue of model '{self.model}' is full ({self.limit} wait); "
            f"try again in {self.retry_after_s:.0f} s"
        )


@_error
class QueueTimeout(AdmissionError):
    """The request waited longer than it was willing to."""

    retryable: ClassVar[bool] = True
    model: str
    waited_s: float

    def __str__(self) -> str:
        return f"waited {self.waited_s:.1f} s for model '{self.model}' and gave up; try again"


@_error
class Unloaded(AdmissionError):
    """The model was unloaded while the request waited for it."""

    retryable: ClassVar[bool] = True
    model: str

    def __str__(self) -> str:
        return f"model '{self.model}' was unloaded while this request waited; try again"


@_error
class ShuttingDown(AdmissionError):
    """gglib is going down and accepts nothing new."""

    retryable: ClassVar[bool] = True

    def __str__(self) -> str:
        return "gglib is shutting down; try again when it is back"


@_error
class Unauthorized(AdmissionError):
    """No key, or one that is not known."""

    reason: str

    def __str__(self) -> str:
        return f"{self.reason}; send 'Authorization: Bearer KEY'"


@_error
class Forbidden(AdmissionError):
    """Known, and not allowed."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@_error
class RateLimited(AdmissionError):
    """Over the key's limit."""

    retryable: ClassVar[bool] = True
    what: str
    retry_after_s: float

    def __str__(self) -> str:
        return f"over the limit of {self.what}; try again in {self.retry_after_s:.0f} s"


class DownloadError(GglibError):
    """A file could not be fetched. URLs are shown without passwords and queries."""


@_error
class DownloadFailed(DownloadError):
    """It could not be fetched, now; what came of it is kept."""

    retryable: ClassVar[bool] = True
    url: str
    reason: str

    def __str__(self) -> str:
        return f"{self.url} could not be fetched: {self.reason}"


@_error
class DownloadNotFound(DownloadError):
    """The server has no such file."""

    url: str

    def __str__(self) -> str:
        return f"{self.url}: the server has no such file; check the name"


@_error
class DownloadRefused(DownloadError):
    """The server answered, and will not give it; ``status`` is that of HTTP."""

    url: str
    status: int
    reason: str

    def __str__(self) -> str:
        return f"{self.url}: the server refuses ({self.status} {self.reason})"


@_error
class HashMismatch(DownloadError):
    """Another file came than was asked for; nothing of it was kept. Hashes are SHA-256."""

    url: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return (
            f"{self.url} is not what was asked for: its sha256 is {self.actual}, expected "
            f"{self.expected}; nothing was kept"
        )


class StorageError(GglibError):
    """Something is wrong with what gglib keeps on disk."""


@_error
class DataDirectoryUnusable(StorageError):
    """The data directory cannot be created or written."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return (
            f"data directory {self.path} cannot be used: {self.reason}; "
            "choose another with --data-dir or GGLIB_HOME"
        )


@_error
class DatabaseCorrupt(StorageError):
    """The file is not a database of ours, or is damaged."""

    path: Path
    reason: str
    backup: Path | None = None

    def __str__(self) -> str:
        remedy = (
            f"the newest backup is {self.backup}"
            if self.backup
            else "move it away and gglib makes a new one"
        )
        return f"database {self.path} cannot be read: {self.reason}; {remedy}"


@_error
class DatabaseTooNew(StorageError):
    """A newer gglib wrote the database."""

    path: Path
    found: str
    supported: str

    def __str__(self) -> str:
        return (
            f"database {self.path} has schema {self.found}, this gglib knows {self.supported}: "
            "a newer gglib wrote it; upgrade gglib, or use another --data-dir"
        )


@_error
class PullNotFound(GglibError):
    """No pull of that id is on record."""

    pull: str

    def __str__(self) -> str:
        return f"there is no pull {_shown(self.pull)}; `gglib model downloads` lists them"


@_error
class PullFailed(GglibError):
    """A gateway that was asked to fetch a model could not."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@_error
class NoSpace(StorageError):
    """The disk has no room for what is to be written."""

    path: Path
    needed_bytes: int
    available_bytes: int

    def __str__(self) -> str:
        return (
            f"the disk of {self.path} has {_size(self.available_bytes)} free, "
            f"{_size(self.needed_bytes)} are needed; free some space and try again"
        )


@_error
class GatewayRunning(GglibError):
    """Another gateway owns the data directory."""

    data_dir: Path
    pid: int | None = None
    address: str | None = None

    def __str__(self) -> str:
        who = f"pid {self.pid}" if self.pid else "another process"
        at = f" at {self.address}" if self.address else ""
        return (
            f"a gateway already serves {self.data_dir} ({who}{at}); "
            "stop it first, or give this one its own --data-dir"
        )


@_error
class GatewayNotRunning(GglibError):
    """No gateway owns the data directory."""

    data_dir: Path

    def __str__(self) -> str:
        return (
            f"no gateway runs on {self.data_dir}; `gglib serve` starts one, "
            "and --data-dir or GGLIB_HOME names that of another"
        )


@_error
class GatewayUnreachable(GglibError):
    """The gateway holds its lock and does not answer."""

    retryable: ClassVar[bool] = True
    address: str
    reason: str

    def __str__(self) -> str:
        return f"the gateway at {self.address} does not answer: {self.reason}"


@_error
class AdapterError(GglibError):
    """A plug-in is missing or broken."""

    group: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"plug-in '{self.name}' ({self.group}): {self.reason}; `gglib doctor` lists them"
