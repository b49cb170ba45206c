"""The command line: its commands, and the one place where an error becomes a line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import cyclopts
from cyclopts import App

from gglib import __version__, errors
from gglib.cli.output import printable
from gglib.errors import GglibError

__all__ = ["exit_status", "make_cli", "run"]

DONE, FAILED, USAGE, NOT_FOUND, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130

_STATUSES: dict[type[GglibError], int] = {
    errors.ConfigurationError: USAGE,
    errors.InvalidValue: USAGE,
    errors.InvalidRequest: USAGE,
    errors.ModelNotFound: NOT_FOUND,
    errors.AmbiguousModel: USAGE,
    errors.ModelFileMissing: NOT_FOUND,
    errors.RepositoryNotFound: NOT_FOUND,
    errors.QuantizationNotFound: NOT_FOUND,
    errors.HubAccessDenied: REFUSED,
    errors.PullNotFound: NOT_FOUND,
    errors.NotRunning: NOT_FOUND,
    errors.EngineNotFound: NOT_FOUND,
    errors.GatewayNotRunning: NOT_FOUND,
    errors.EngineInUse: REFUSED,
    errors.AdmissionError: REFUSED,
    errors.GatewayRunning: REFUSED,
    errors.DatabaseTooNew: REFUSED,
    errors.ModelExists: REFUSED,
    errors.DoesNotFit: REFUSED,
    errors.NoRoom: REFUSED,
    errors.NoSpace: REFUSED,
    errors.DownloadNotFound: NOT_FOUND,
    errors.DownloadRefused: REFUSED,
}


#: Where each command lives, and what it does: told before it is imported.
_COMMANDS = {
    "run": ("gglib.cli.run:run", "Chat with a model, or a GGUF file, in one command."),
    "serve": ("gglib.cli.serve:serve", "Serve every model at one OpenAI-compatible address."),
    "start": ("gglib.cli.servers:start", "Start a model's server, and return when it is ready."),
    "stop": ("gglib.cli.servers:stop", "Stop a model's server."),
    "ps": ("gglib.cli.servers:ps", "Show what is running."),
    "top": ("gglib.cli.top.command:top", "Watch a running gateway: servers, queues, speed."),
    "why": ("gglib.cli.why:why", "Say why a model is in memory, was evicted, or waits."),
    "logs": ("gglib.cli.servers:logs", "Show what a model's engine has printed."),
    "model": (
        "gglib.cli.models:app",
        "The models gglib knows: add, scan, pull, list, set, remove …",
    ),
    "engine": ("gglib.cli.engines:app", "Engines: install, list, probe, use, remove."),
    "config": ("gglib.cli.config:app", "Settings: show, check, reload, and their schema."),
    "doctor": ("gglib.cli.doctor:doctor", "Say what is wrong here, and how to mend it."),
    "demo": ("gglib.cli.demo:demo", "Serve a tiny model made on the spot, and ask it something."),
}


def make_cli() -> App:
    """Return the command line. Commands are imported when they are called."""
    app = App(
        name="gglib",
        help="Runs language-model servers: one OpenAI-compatible address for all your models.",
        version=f"gglib {__version__}",
        help_format="plaintext",
    )
    for name, (place, summary) in _COMMANDS.items():
        app.command(place, name=name, help=summary)
    return app


def exit_status(error: BaseException) -> int:
    """Return the exit status that tells of ``error``."""
    for cls in type(error).__mro__:
        if cls in _STATUSES:
            return _STATUSES[cls]
    return FAILED


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status. No traceback reaches a user unasked."""
    debug = "--debug" in arguments
    app = make_cli()
    try:
        result = app(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return _fail(str(error), USAGE, hint="gglib --help")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has enough: end quietly, and keep the interpreter from flushing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (Exception, BaseExceptionGroup) as error:
        if debug:
            raise
        return _fail_of(_root_of(error))
    return result if isinstance(result, int) else DONE


def _root_of(error: BaseException) -> BaseException:
    """Return the one error inside nested task groups, or the first of ours."""
    while isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(GglibError)
        error = (ours or error).exceptions[0]
    return error


def _fail_of(error: BaseException) -> int:
    if isinstance(error, GglibError):
        return _fail(str(error), exit_status(error))
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return _fail(f"the disk is full: {error}; free some space and try again", FAILED)
        return _fail(str(error), FAILED)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return _fail(
        f"internal error: {type(error).__name__}: {error}; --debug shows the traceback", FAILED
    )


def _fail(message: str, status: int, *, hint: str | None = None) -> int:
    # What a file or a server has said may be in it.
    one_line = printable(" ".join(message.split()))
    sys.stderr.write(f"gglib: {one_line}" + (f" ({hint})" if hint else "") + "\n")
    return status
