"""What is shipped: our three packages, and nothing that is somebody else's."""

from __future__ import annotations

import configparser
import io
import zipfile
from email import message_from_bytes
from pathlib import Path

import gglib

CHECKOUT = Path(__file__).parents[2]


def test_wheel_holds_our_packages_alone(wheel: Path) -> None:
    """No ``adapters``, ``tests`` or ``docs`` lands where all packages meet."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops == {
        "gglib",
        "gglib_adapters",
        "gglib_migrations",
        f"gglib-{gglib.__version__}.dist-info",
    }


def test_wheel_holds_every_module(wheel: Path) -> None:
    """None is left out, and each is where it is imported from."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.endswith(".py")}
    written = {
        path.relative_to(root).as_posix()
        for root, package in [
            (CHECKOUT, "gglib"),
            (CHECKOUT / "adapters", "gglib_adapters"),
            (CHECKOUT / "migrations", "gglib_migrations"),
        ]
        for path in (root / package).rglob("*.py")
    }
    assert shipped == written


def test_wheel_says_what_it_is(wheel: Path) -> None:
    """Version, command and entry points; the license comes along."""
    info = f"gglib-{gglib.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
        points = configparser.ConfigParser(delimiters="=")
        points.optionxform = str  # type: ignore[assignment,method-assign]
        points.read_file(io.StringIO(archive.read(f"{info}/entry_points.txt").decode()))
    assert (metadata["Name"], metadata["Version"]) == ("gglib", gglib.__version__)
    assert dict(points["console_scripts"]) == {"gglib": "gglib.__main__:main"}
    assert points["gglib.process_runners"]["local"].startswith("gglib_adapters.")
    assert f"{info}/licenses/LICENSE" in names
