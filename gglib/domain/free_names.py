"""Names for models that come without one: safe, and never to be taken for another's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import count

__all__ = ["FreeNames", "appearance"]

_MAX_NAME = 200
#: Letters of other alphabets that look like Latin ones in most typefaces.
#: Source: Unicode 16.0, confusables.txt; those of Cyrillic, Greek and Armenian.
_LOOK_ALIKES = {
    int(code, 16): latin
    for latin, codes in {
        "3": "0437",
        "a": "0430 03b1",
        "b": "0432 03b2",
        "c": "0441",
        "d": "0501",
        "e": "0435 03b5",
        "g": "0581",
        "h": "043d 04bb",
        "i": "0456 03b9",
        "j": "0458",
        "k": "043a 03ba",
        "m": "043c",
        "n": "0578 03b7",
        "o": "043e 03bf",
        "p": "0440 03c1 0584",
        "q": "051b",
        "s": "0455",
        "t": "0442 03c4",
        "u": "057d 03c5",
        "v": "03bd",
        "w": "0461 03c9",
        "x": "0445 03c7",
        "y": "0443 03b3",
    }.items()
    for code in codes.split()
}
_SEPARATORS = re.compile(r"[ _\u2010-\u2015\u2212-]")


def appearance(name: str) -> str:
    """Return what is the same for names that people take for one another.

    Case, accents, widths, kinds of separators, and the alphabet of look-alike letters are left
    aside.
    """
    plain = unicodedata.normalize("NFKD", name.casefold()).translate(_LOOK_ALIKES)
    kept = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return _SEPARATORS.sub("-", kept).replace("l", "1")


class FreeNames:
    """Finds names that look like none of those that are taken."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {appearance(name) for name in taken}

    def take(self, name: str) -> bool:
        """Take ``name``, unless one that looks like it is taken; tell whether it was free."""
        if appearance(name) in self._taken:
            return False
        self._taken.add(appearance(name))
        return True

    def choose(self, wanted: str, folder: str) -> str:
        """Return ``wanted``, or that with its folder's name before or a number behind; take it.

        ``wanted`` is a valid name; so is what is returned.
        """
        for name in self._candidates(wanted, folder):
            if self.take(name):
                return name
        raise AssertionError("numbers do not end")  # pragma: no cover

    def _candidates(self, wanted: str, folder: str) -> Iterable[str]:
        yield wanted
        both = f"{folder}-{wanted}"
        if folder and len(both) <= _MAX_NAME:
            yield both
        for number in count(2):
            ending = f"-{number}"
            yield wanted[: _MAX_NAME - len(ending)].rstrip(" ./") + ending
