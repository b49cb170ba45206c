"""The one place where an error becomes a line and a status."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import Any

import pytest
from support.errors import ERRORS, error_sample

from gglib import __main__, __version__
from gglib.cli import main as cli
from gglib.cli.main import FAILED, INTERRUPTED, NOT_FOUND, REFUSED, USAGE, exit_status
from gglib.errors import GglibError, ModelNotFound, PortInUse

#: By name, so that a new error is given its status on purpose.
STATUSES = {
    USAGE: "AmbiguousModel ConfigurationError InvalidRequest InvalidValue",
    NOT_FOUND: (
        "EngineNotFound GatewayNotRunning ModelFileMissing ModelNotFound NotRunning PullNotFound "
        "QuantizationNotFound RepositoryNotFound DownloadNotFound"
    ),
    REFUSED: (
        "AdmissionError DatabaseTooNew DoesNotFit Forbidden GatewayRunning ModelExists NoRoom "
        "QueueFull QueueTimeout RateLimited ShuttingDown Unauthorized Unloaded HubAccessDenied "
        "EngineInUse NoSpace DownloadRefused"
    ),
    FAILED: (
        "AdapterError BreakerOpen DataDirectoryUnusable DatabaseCorrupt EngineCannot EngineDied "
        "EngineError GatewayUnreachable GglibError InvalidModelFile ModelError NotConfigured "
        "NodeUnreachable NotStarted PortInUse ServerError StartFailed StartTimeout StopFailed "
        "StorageError HubAnswerWrong HubError HubUnavailable PullFailed DownloadError "
        "DownloadFailed EngineInstallFailed HashMismatch ServerUntrusted"
    ),
}
EXPECTED = {name: status for status, names in STATUSES.items() for name in names.split()}


@pytest.mark.parametrize("kind", ERRORS)
def test_error_ends_with_its_status(kind: type[GglibError]) -> None:
    """0 done, 1 failed, 2 usage, 3 not found, 4 refused."""
    assert exit_status(error_sample(kind)) == EXPECTED[kind.__name__]


def test_strangers_error_is_a_failure() -> None:
    """Nothing is known of it."""
    assert exit_status(OSError()) == FAILED


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Have every command raise ``error``."""

    def app(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "make_cli", lambda: app)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ModelNotFound("x"), 3, "no model named 'x'; `gglib model list` shows the ones there are"),
        (
            ExceptionGroup("g", [ExceptionGroup("h", [OSError(), PortInUse(80)])]),
            1,
            "port 80 is in use; choose another with --port",
        ),
        (OSError(errno.EIO, "Input/output error", "f"), 1, "[Errno 5] Input/output error: 'f'"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "the disk is full: [Errno 28] No space left on device; free some space and try again",
        ),
        (GglibError("several\nlines\n  of it"), 1, "several lines of it"),
        (
            KeyError("k"),
            1,
            "internal error: KeyError: 'k'; --debug shows the traceback",
        ),
        (ExceptionGroup("g", [ValueError("v")]), 1, "internal error: ValueError: v; --debug"),
    ],
)
def test_error_is_one_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    line: str,
) -> None:
    """No traceback reaches a user unasked, out of whatever task groups it came."""
    fail_with(monkeypatch, error)
    assert cli.run(["ps"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    (shown,) = err.splitlines()
    assert shown.startswith(f"gglib: {line}")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error itself comes out."""
    fail_with(monkeypatch, ModelNotFound("x"))
    with pytest.raises(ModelNotFound):
        cli.run(["ps", "--debug"])


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("g", [KeyboardInterrupt()])]
)
def test_interruption_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    """Also out of a task group."""
    fail_with(monkeypatch, error)
    assert cli.run(["ps"]) == INTERRUPTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["--version"], ["-V"]])
def test_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Before anything is imported."""
    monkeypatch.setattr(sys, "argv", ["gglib", *arguments])
    assert __main__.main() == 0
    assert capsys.readouterr().out == f"gglib {__version__}\n"


def test_version_imports_no_command_line() -> None:
    """What takes a bare interpreter's time has imported nothing of weight."""
    code = (
        "import sys; sys.argv[1:] = ['--version']; from gglib.__main__ import main; main()\n"
        "print(sorted({'cyclopts', 'attrs', 'anyio', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment()
    )
    assert done.stdout.splitlines() == [f"gglib {__version__}", "[]"]


def _environment() -> dict[str, Any]:
    """Return this environment without what measures coverage, which imports."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@pytest.mark.parametrize("command", [[], *[[name] for name in sorted(cli._COMMANDS)]])
def test_help_is_told_of_every_command(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """What it does, and its options."""
    assert cli.run([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: gglib" in out
    if not command:
        assert all(name in out for name in cli._COMMANDS)
