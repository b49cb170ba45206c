"""Run conformance contracts as a third party does: in a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["PLUGINS", "Outcomes", "failures", "run_kit"]

#: Class name -> test name -> ``passed``, ``skipped``, ``failed`` or ``error``.
Outcomes = Mapping[str, Mapping[str, str]]

#: Of a test's runs, with several parameters or event loops, the worst counts.
_ORDER = ("skipped", "passed", "failed", "error")

_TESTS = Path(__file__).parents[1]

#: What a third party must have, and nothing that merely happens to be installed.
PLUGINS = ("-p", "anyio.pytest_plugin", "-p", "no:cacheprovider")

# Strict is anyio's own default: contracts must not depend on this project's settings.
_INI = """\
[pytest]
anyio_mode = strict
filterwarnings = error
xfail_strict = true
"""


def run_kit(
    folder: Path,
    source: str,
    *,
    modules: Sequence[Path] = (),
    only: Sequence[str] = (),
    timeout_s: float = 50,
) -> Outcomes:
    """Run ``source``, a test module, in ``folder``; ``support`` can be imported in it.

    ``only``: the tests to run, as ``CLASS`` or ``CLASS::TEST``; none = all.

    So can what lies in the folders ``modules``. Its own process, so that a broken adapter
    breaks nothing here.
    """
    path = os.pathsep.join(str(place) for place in (_TESTS, *modules))
    (folder / "pytest.ini").write_text(_INI)
    (folder / "test_kit.py").write_text(source)
    report = folder / "report.xml"
    options = ["-q", "--tb=line", "--import-mode=importlib", *PLUGINS]
    chosen = [f"test_kit.py::{each}" for each in only] or ["test_kit.py"]
    places = [f"--junitxml={report}", f"--basetemp={folder / 'tmp'}", *chosen]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *places],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=timeout_s,
        check=False,
    )
    # 1 says that tests failed, which they are meant to; anything higher, that none ran.
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ElementTree.parse(report).iter("testcase"):
        tests = outcomes[case.get("classname", "").rpartition(".")[2]]
        name = case.get("name", "").partition("[")[0]
        tests[name] = max(tests.get(name, "skipped"), _outcome(case), key=_ORDER.index)
    return outcomes


def failures(outcomes: Outcomes) -> dict[str, set[str]]:
    """Return the tests that did not pass, by class; every class is there."""
    return {
        kit: {name for name, outcome in tests.items() if outcome in {"failed", "error"}}
        for kit, tests in outcomes.items()
    }


def _outcome(case: ElementTree.Element) -> str:
    for tag, outcome in (("error", "error"), ("failure", "failed"), ("skipped", "skipped")):
        if case.find(tag) is not None:
            return outcome
    return "passed"
