"""The documentation cannot rot: its examples run, its links lead somewhere, its lists are whole."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import anyio
import attrs
import jsonschema
import pytest
from cyclopts import App
from support.extras import require_embedded_engine
from support.pages import FOLLOWED, ROOT, blocks_of

import gglib
from gglib.cli.main import make_cli
from gglib.domain.inference import InferenceConfig
from gglib.domain.model import SERVER_DEFAULT_FIELDS
from gglib.gateway.app import Parts, make_app
from gglib.gateway.problems import PROBLEMS
from gglib.gateway.relay.routes import INFERENCE_PATHS
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib.settings import (
    DeclaredModel,
    GatewaySettings,
    PoolSettings,
    RoutingSettings,
    ServingSettings,
    TelemetrySettings,
    load_settings,
)
from gglib.settings.schema import settings_schema
from gglib_adapters.engines.command import PLACEHOLDERS
from gglib_adapters.runners.local.settings import LocalRunnerSettings
from gglib_adapters.runners.mock.settings import MockRunnerSettings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = ROOT / "docs" / "reference"

_BLOCK = re.compile(r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_OPENS = re.compile(r"gglib\.(blocking\.)?open\(")
_LINK = re.compile(r"\[[^\]]+\]\((?!https?://)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def blocks(language: str) -> list[Any]:
    """Return every block of ``language``, named by page and line.

    Files that a page has its reader save are tested where the page is followed.
    """
    found = []
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == language and not (block.file and page in FOLLOWED):
                name = f"{page.relative_to(ROOT)}:{block.line}"
                marks = [pytest.mark.engine] if _OPENS.search(block.code) else []
                found.append(pytest.param(block.code, name, id=name, marks=marks))
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with nothing but a tiny model, and a data directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GGLIB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GGLIB_CONFIG", raising=False)
    (tmp_path / "tiny.gguf").write_bytes(tiny_gguf())
    return tmp_path


@pytest.mark.parametrize(("code", "name"), blocks("python"))
def test_python_example_runs(code: str, name: str, home: Path) -> None:
    """A block that defines ``main`` is run by it, with the engine if it opens the library."""
    del home
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, name, "exec"), namespace)
    if not _OPENS.search(code):
        return
    require_embedded_engine()

    async def run() -> None:
        if "models.add" not in code:  # the page has had it added before
            async with gglib.open() as lib:
                await lib.models.add("tiny.gguf")
        if iscoroutinefunction(namespace["main"]):
            await namespace["main"]()
        else:
            await anyio.to_thread.run_sync(namespace["main"])

    anyio.run(run)


@pytest.mark.parametrize(("code", "name"), blocks("toml"))
def test_settings_example_is_accepted(code: str, name: str, tmp_path: Path) -> None:
    """Nothing in it is unknown or wrong, to editors neither. Files it names need not exist."""
    del name
    file = tmp_path / "gglib.toml"
    file.write_text(code)
    flags = {"config": file, "data_dir": tmp_path / "home"}
    assert load_settings(flags=flags, environ={}).settings.config_file == file
    jsonschema.validate(tomllib.loads(code), settings_schema(), jsonschema.Draft7Validator)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    """A link to a page finds it, and its anchor a heading there."""
    for link in _LINK.finditer(_BLOCK.sub("", page.read_text())):
        target = (page.parent / link["path"]).resolve() if link["path"] else page
        assert target.exists(), link[0]
        if link["anchor"]:
            assert link["anchor"] in {anchor(title) for title in headings(target)}, link[0]


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_page_is_reached_from_the_readme(page: Path) -> None:
    """No page is lost: the README names each."""
    assert f"({page.relative_to(ROOT)})" in PAGES[0].read_text()


def test_settings_page_has_every_key_with_its_default() -> None:
    """Of the gateway, the local runner, command engines and models."""
    rows = table_rows(REFERENCE / "settings.md")
    for settings in (
        GatewaySettings,
        ServingSettings,
        RoutingSettings,
        PoolSettings,
        TelemetrySettings,
        LocalRunnerSettings,
        MockRunnerSettings,
    ):
        for field in attrs.fields(settings):
            _type, default = rows[field.name][:2]
            assert written_default(field.default) == default.strip("`"), field.name
    declarable = {field.name for field in attrs.fields(DeclaredModel)} - {"name", "server"}
    # As they are called in the file.
    declarable = {name.removesuffix("_parameters") for name in declarable}
    declarable |= {field.name for field in attrs.fields(InferenceConfig)}
    text = (REFERENCE / "settings.md").read_text()
    for name in (*SERVER_DEFAULT_FIELDS, *declarable, *(f"{{{name}}}" for name in PLACEHOLDERS)):
        assert f"`{name}`" in text, name


def test_command_line_page_has_every_command_and_flag() -> None:
    """A flag stands under its command, or among those that every command takes."""
    page = (REFERENCE / "command-line.md").read_text()
    common, *sections = re.split(r"^## gglib ", page, flags=re.MULTILINE)
    by_command = {
        re.match(r"[a-z -]*[a-z]", section)[0]: section  # type: ignore[index]
        for section in sections
    }
    documented = dict(commands(make_cli()))
    assert sorted(by_command) == sorted(documented)
    for command, flags in documented.items():
        for flag in flags:
            assert f"`{flag}" in by_command[command] + common, (command, flag)


def test_http_page_has_every_error_code_and_route() -> None:
    """With its status, its type, and whether to try again."""
    page = (REFERENCE / "http.md").read_text()
    for path in INFERENCE_PATHS:
        assert f"`POST {path}`" in page
    app = make_app(Parts(*[None] * 8))  # type: ignore[arg-type]
    for route in app.routes:
        fixed = route.path.partition("{")[0]
        for method in route.methods - {"OPTIONS"}:  # type: ignore[attr-defined]
            assert f"`{method} {fixed}" in page, route.path
    rows = [line for line in page.splitlines() if re.match(r"\| \d{3} ", line)]
    for error, problem in PROBLEMS.items():
        if problem.code is None:
            continue
        wanted = [row for row in rows if f"`{problem.code}`" in row]
        assert len(wanted) == 1, (error, problem.code)
        _, status, kind, _, retry, *_ = (cell.strip() for cell in wanted[0].split("|"))
        shown = (str(problem.status), f"`{problem.type}`", "retry" if problem.retry else "")
        assert (status, kind, retry) == shown, error


def headings(page: Path) -> list[str]:
    """Return the titles of a page's sections."""
    return _HEADING.findall(_BLOCK.sub("", page.read_text()))


def anchor(title: str) -> str:
    """Return the anchor that the usual renderers make of a title."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def table_rows(page: Path) -> dict[str, list[str]]:
    """Return the cells behind each name that stands in the first cell of a table's row."""
    found: dict[str, list[str]] = {}
    for line in page.read_text().splitlines():
        if line.startswith("| `"):
            first, *cells = (cell.strip() for cell in line.strip("|").split(" |"))
            for name in re.findall(r"`([^`]+)`", first):
                found.setdefault(name, cells)
    return found


def written_default(value: object) -> str:
    """Return a default as a settings file writes it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case attrs.Factory():  # type: ignore[misc]
            return "{}"
        case tuple():
            return str(list(value))
        case _:
            return f"{value:g}" if isinstance(value, float) else str(value)


def commands(app: App, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Return every command below ``app`` with its flags; what may be positional is none."""
    for name in app:
        if name.startswith("-"):
            continue
        command, full = app[name], f"{path} {name}".strip()
        if any(not each.startswith("-") for each in command):
            yield from commands(command, full)
            continue
        yield (
            full,
            [
                flag
                for argument in command.assemble_argument_collection()
                if not argument.field_info.is_positional
                for flag in (*argument.names, *argument.negatives)
                if flag.startswith("-")
            ],
        )
