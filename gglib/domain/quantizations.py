"""Which model files of a repository belong together, and which to take.

Names decide here, for choosing only: what a model truly is, its file says once it is there.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import attrs

from gglib.domain.hub import HubFile
from gglib.errors import QuantizationNotFound

__all__ = [
    "Quantization",
    "best_quantization",
    "find_quantization",
    "projector_among",
    "quantizations_of",
]

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_LABEL = re.compile(
    r"(?<![A-Z0-9])(?:UD-)?"
    r"(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|B?F16|FP16|F32|FP32)(?![A-Z0-9])",
    re.IGNORECASE,
)
_PROJECTOR = "mmproj"
#: What lies beside models and is none: importance matrices, vocabularies.
_NO_MODEL = re.compile(r"(?<![a-z])(imatrix|ggml-vocab)", re.IGNORECASE)

#: Four bits are the best trade for most; then the least that is lost, then what is smaller.
_BITS = (4, 5, 6, 8, 16, 32, 3, 2, 1)
#: Of the same bits, by ending.
_VARIANTS = ("K_M", "K_XL", "K_L", "K_S", "XS", "NL", "MXFP4", "0", "1")
#: The least that is lost, then the least memory.
_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")


@attrs.frozen(kw_only=True)
class Quantization:
    """One model of a repository. ``files``: every shard, the first one first."""

    name: str
    """``Q4_K_M`` and the like, in capitals; the file's stem where that does not tell one, or its
    path, with dashes for slashes, where that does not either. No two of a repository are alike."""
    stem: str
    """The files' name without suffix and shard number."""
    files: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        """All shards together."""
        return sum(file.size_bytes for file in self.files)


def quantizations_of(files: Iterable[HubFile]) -> tuple[Quantization, ...]:
    """Return the models among ``files``, the smallest first.

    Projectors are none, nor is a model of which shards are missing.
    """
    groups: dict[tuple[str, int], dict[int, HubFile]] = {}
    for file in files:
        if not _is_model(file):
            continue
        path = file.path[: -len(".gguf")]
        match = _SHARD.fullmatch(path)
        if match is None:
            groups[path, 1] = {1: file}
        else:
            key = match["stem"], int(match["count"])
            groups.setdefault(key, {})[int(match["number"])] = file
    found = [
        (path, tuple(group[number] for number in sorted(group)))
        for (path, count), group in groups.items()
        if sorted(group) == list(range(1, count + 1))
    ]
    names = _names([path for path, _ in found])
    quantizations = [
        Quantization(name=name, stem=_stem(path), files=group)
        for (path, group), name in zip(found, names, strict=True)
    ]
    return tuple(sorted(quantizations, key=lambda each: (each.size_bytes, each.name)))


def _names(paths: Sequence[str]) -> list[str]:
    """Return a name for each, the shortest that tells it from all others."""
    ways: list[list[str]] = [
        [label for label in (_label(path),) if label is not None]
        + [_stem(path), path.replace("/", "--"), path.replace("/", "---")]
        for path in paths
    ]
    counts = Counter(name.casefold() for names in ways for name in dict.fromkeys(names))
    return [
        next((name for name in names if counts[name.casefold()] == 1), names[-1]) for names in ways
    ]


def find_quantization(
    quantizations: Sequence[Quantization], wanted: str, repository: str
) -> Quantization:
    """Return the one that ``wanted`` names: its name in any case, its stem, or a file's name.

    Raises:
        QuantizationNotFound: there is none, or more than one; names those there are.
    """
    asked = wanted.casefold()
    found = []
    for each in quantizations:
        if asked == each.name.casefold():
            return each
        if asked == each.stem.casefold() or any(
            asked in (file.path.casefold(), file.name.casefold()) for file in each.files
        ):
            found.append(each)
    whole = [each for each in found if asked == each.files[0].path.casefold()]
    if len(found) == 1 or len(whole) == 1:
        return (whole or found)[0]
    if found:
        several = " or ".join(each.name for each in found[:20])
        raise QuantizationNotFound(
            f"in {repository}, '{wanted[:200]}' could be {several}; name one of them"
        )
    names = {each.name.casefold(): each.name for each in quantizations}
    close = difflib.get_close_matches(asked[:200], names, n=3, cutoff=0.5)
    shown = [names[name] for name in close] or sorted(names.values())[:20]
    there = f"it has {', '.join(shown)}" if shown else "it has no whole GGUF model"
    raise QuantizationNotFound(
        f"{repository} has no quantization '{wanted[:200]}'; {there}; "
        f"`gglib model quants {repository}` lists them"
    )


def best_quantization(
    quantizations: Sequence[Quantization], fits: Callable[[Quantization], bool]
) -> Quantization | None:
    """Return the one to take where nobody has chosen: the first that fits, by preference.

    Four bits are preferred, then five, six, eight, 16, 32; where none of these fits, three, two
    and one. Of the same bits ``K_M`` comes first. Names that tell nothing come last.
    """
    return next((each for each in sorted(quantizations, key=_rank) if fits(each)), None)


def projector_among(files: Iterable[HubFile], of: Quantization) -> HubFile | None:
    """Return the projector to fetch with a model: in its folder or above, F16 before others.

    Where projectors of several models lie side by side, the one whose name shares the most.
    """
    folder = of.files[0].path.rpartition("/")[0]
    candidates = [
        file
        for file in files
        if _is_projector(file) and file.path.rpartition("/")[0] in {folder, ""}
    ]
    return min(candidates, key=lambda file: _projector_rank(file, of), default=None)


def _is_projector(file: HubFile) -> bool:
    name = file.name.casefold()
    return name.endswith(".gguf") and _PROJECTOR in name


def _is_model(file: HubFile) -> bool:
    name = file.name.casefold()
    return name.endswith(".gguf") and _PROJECTOR not in name and not _NO_MODEL.search(name)


def _stem(path: str) -> str:
    return path.rpartition("/")[2]


def _label(path: str) -> str | None:
    """Return what a path says of its encoding: the file's name first, then its folder's."""
    for part in reversed(path.split("/")):
        found = _LABEL.findall(part)
        if found:
            return re.sub(r"^FP(?=16|32)", "F", str(found[-1]).upper())
    return None


def _rank(each: Quantization) -> tuple[int, int, int, str]:
    name = each.name.upper().removeprefix("UD-")
    digits = re.search(r"\d+", name)
    bits = int(digits[0]) if digits and _LABEL.fullmatch(each.name) else 0
    bit_rank = _BITS.index(bits) if bits in _BITS else len(_BITS)
    variant = next(
        (rank for rank, ending in enumerate(_VARIANTS) if name.endswith(ending)), len(_VARIANTS)
    )
    return bit_rank, variant, each.size_bytes, each.name


def _projector_rank(file: HubFile, of: Quantization) -> tuple[int, int, str]:
    label = _label(file.path[: -len(".gguf")])
    rank = _PROJECTORS.index(label) if label in _PROJECTORS else len(_PROJECTORS)
    shared = _words(file.name) & _words(of.stem)
    return -len(shared), rank, file.path


def _words(name: str) -> set[str]:
    words = re.split(r"[\W_]+", _LABEL.sub("", name).casefold())
    return {word for word in words if word and word not in {_PROJECTOR, "gguf"}}
