"""``gglib run``: from a name, or a file, to a chat, in one command."""

from __future__ import annotations

import contextlib
import signal
import ssl
import sys
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import attrs
from cyclopts import Parameter

from gglib.cli.gateway_client import find_gateway
from gglib.cli.options import COMMON, Common, compose_for, settings_for
from gglib.cli.output import size, tell
from gglib.cli.sampling import with_parameter
from gglib.domain.hub import RepositoryReference, parse_reference
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import Model
from gglib.domain.server_address import ServerAddress
from gglib.errors import GglibError, InvalidRequest, ModelNotFound, PullFailed

if TYPE_CHECKING:
    from gglib.cli.conversation import Conversation
    from gglib.services.serving import RunningServer

__all__ = ["run"]


@attrs.frozen
class _Address:
    """Where a model answers."""

    base_url: str
    key: str | None
    trust: ssl.SSLContext | None = None
    """What its certificate is held against; ``None``: it needs none."""


def run(
    model: str,
    /,
    *,
    prompt: Annotated[str | None, Parameter(name=["--prompt", "-p"])] = None,
    system: str | None = None,
    context_size: int | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    common: Common = COMMON,
) -> None:
    """Chat with a model. It is fetched, added, and started, if need be.

    With a gateway running, the gateway serves it; without one, it is served for as long as
    the chat lasts.

    Parameters
    ----------
    model
        Its name, a GGUF file, or OWNER/NAME of a hub, with :QUANTIZATION if not the best that fits.
    prompt
        Ask this, print the answer, and end. What is piped in is part of the question.
    system
        What the model is told first.
    context_size
        Tokens that it can keep in mind.
    set_
        A sampling parameter, as KEY=VALUE; may be given several times.
    """
    inference = reduce(with_parameter, set_, InferenceConfig())
    question = _question(prompt)
    found = anyio.run(_find, model, common) or _fetched(model, common)
    _end_on_signals()
    with _answering(found, common, context_size) as address, _talk(address, found) as talk:
        talk.system = system
        talk.inference = inference
        if question is not None:
            from gglib.cli.chat import write_answer

            write_answer(talk, question, is_terminal=sys.stdout.isatty())
            return
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - typed lines can be edited, and called back
        from gglib.cli.chat import Chat

        tell("/help tells what can be typed; /bye ends")
        Chat(talk, facts=lambda: _facts(found)).run()


def _end_on_signals() -> None:
    """Have a closed terminal, or whoever ends this, leave no server behind."""

    def end(number: int, _frame: object) -> None:
        # A Ctrl-C now would break off the end itself, and leave the server.
        signal.signal(signal.SIGINT, lambda *_: None)
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Whoever has it ignored, as nohup does, means it.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def _question(prompt: str | None) -> str | None:
    """Return what is to be asked once; ``None``: whatever will be typed."""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt
    piped = sys.stdin.buffer.read().decode("utf-8", "replace").strip()
    parts = [part for part in (prompt, piped) if part]
    if not parts:
        raise InvalidRequest("nothing was asked: -p PROMPT asks, and so does what is piped in")
    return "\n\n".join(parts)


async def _find(name: str, common: Common) -> Model | None:
    """Return the model of that name, file or repository; ``None``: it is to be fetched.

    A file that is new is added.
    """
    async with compose_for(common) as parts:
        models = await parts.models()
        try:
            return (await models.resolve(name)).model
        except ModelNotFound:
            path, is_file = _file(name)
            reference = None if is_file else _repository(name)
            if reference is not None:
                return _pulled(await models.list(), reference)
            if not is_file:
                raise
        for known in await models.list():
            if path in [each.resolve() for each in known.paths]:
                return known
        added = await models.add(path)
        tell(f"added {added.name} ({size(added.size_bytes)})")
        return added


def _repository(name: str) -> RepositoryReference | None:
    try:
        return parse_reference(name)
    except GglibError:
        return None


def _pulled(models: Iterable[Model], reference: RepositoryReference) -> Model | None:
    """Return the model that has come from there, if one has; the newest of several."""
    for model in sorted(models, key=lambda each: -each.added_at):
        if not model.origin.fetched or model.origin.repository != reference.repository:
            continue
        # Each quantization has a folder of its own.
        wanted = reference.quantization
        if wanted is None or wanted.casefold() in map(str.casefold, model.path.parts):
            return model
    return None


def _fetched(name: str, common: Common) -> Model:
    from gglib.cli.pulls import fetch

    told = fetch(parse_reference(name), common)
    if told["state"] == "cancelled":
        raise PullFailed(f"{name} was cancelled by somebody")
    found = anyio.run(_find, str(told["model"]), common)
    if found is None:
        raise ModelNotFound(str(told["model"]))
    tell(f"pulled {found.name} ({size(found.size_bytes)})")
    return found


def _file(name: str) -> tuple[Path, bool]:
    """Return the path that is meant, and whether one is meant at all."""
    path = Path(name).expanduser()
    return path.resolve(), name.endswith(".gguf") or path.is_file()


@contextlib.contextmanager
def _answering(model: Model, common: Common, context_size: int | None) -> Iterator[_Address]:
    """Have the model served for the block."""
    settings = settings_for(common)
    gateway = find_gateway(settings.data_dir)
    if gateway is not None:
        if context_size is not None:
            raise InvalidRequest(
                "a gateway serves the model, as its settings say: context_size is set there"
            )
        from gglib.gateway.pinning import pinned

        shown = gateway.certificate
        yield _Address(gateway.address, gateway.admin_token, pinned(shown) if shown else None)
        return
    from gglib import blocking

    tell(f"loading {model.name} …")
    with blocking.open(settings.data_dir, config=settings.config_file) as library:
        if context_size is None:
            with library.lease(model.name) as lease:
                yield _of_server(lease.server)
        else:
            with library.serve(model.name, context_size=context_size) as server:
                yield _of_server(server)


def _of_server(server: RunningServer) -> _Address:
    trust = None
    if ServerAddress.parse(server.base_url).is_tls:
        trust = ssl.create_default_context(cafile=server.handle.ca_file)
    return _Address(server.base_url, server.api_key, trust)


@contextlib.contextmanager
def _talk(address: _Address, model: Model) -> Iterator[Conversation]:
    import httpx

    from gglib.cli.conversation import Conversation

    place = ServerAddress.parse(address.base_url)
    client = httpx.Client(
        base_url=place.http_url,
        transport=httpx.HTTPTransport(
            uds=place.socket_path,
            # Over plain HTTP nothing is to be trusted.
            verify=address.trust or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
        ),
        headers={} if address.key is None else {"authorization": f"Bearer {address.key}"},
        # A model may take its time; Ctrl-C is there.
        timeout=httpx.Timeout(10.0, read=None),
        trust_env=False,
    )
    with Conversation(client, model.name) as conversation:
        yield conversation


def _facts(model: Model) -> str:
    facts = model.facts
    told = (facts.architecture, facts.quantization, size(model.size_bytes))
    return f"{model.name}: " + ", ".join(each for each in told if each)
