"""The reference of log events: complete, and nothing in it that is not."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from support.events import EVENTS

from gglib.domain.events import Event

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "log-events.md"
#: What every line of the log has besides its event's own fields.
OF_EVERY_LINE = {"event", "level", "timestamp", "at"}


@pytest.mark.parametrize("kind", EVENTS)
def test_event_is_documented_with_its_fields(kind: type[Event]) -> None:
    """Its name, and after it, before the next event's, each of its fields."""
    page = PAGE.read_text()
    assert f"`{kind.name}`" in page, f"{PAGE.name} does not name {kind.name}"
    section = page.partition(f"`{kind.name}`")[2]
    ends = [section.find(f"`{other.name}`") for other in EVENTS if other is not kind]
    section = section[: min((end for end in ends if end >= 0), default=len(section))]
    for field in attrs.fields(kind):
        if field.name not in OF_EVERY_LINE:
            assert f"`{field.name}`" in section, f"{kind.name}: `{field.name}` is not told"


def test_no_event_is_documented_that_there_is_none_of() -> None:
    """What was renamed is renamed there."""
    families = {kind.name.partition(".")[0] for kind in EVENTS}
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", PAGE.read_text()))
    of_ours = {name for name in named if name.partition(".")[0] in families}
    assert of_ours == {kind.name for kind in EVENTS}


def test_names_are_dotted_and_each_is_one_events() -> None:
    """A literal that can be searched for."""
    names = [kind.name for kind in EVENTS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in names)
