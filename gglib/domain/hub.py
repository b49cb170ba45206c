"""What a hub of models tells: repositories, and the files of one revision."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import attrs

from gglib.domain.validation import between
from gglib.errors import InvalidRequest, InvalidValue

__all__ = ["FoundRepository", "HubFile", "HubRevision", "RepositoryReference", "parse_reference"]

_PART = r"[A-Za-z0-9_](?:[\w.-]{0,94}[\w-])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_REVISION = re.compile(r"[\w][\w./+-]{0,199}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 1000
_MAX_NAME_BYTES = 255
_SIZE = between(0, 2**63 - 1, optional=False)


def _repository(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not _REPOSITORY.fullmatch(value) or ".." in value:
        raise InvalidValue(attribute.name, value, "OWNER/NAME, as a hub has it")


def _revision(_instance: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not _REVISION.fullmatch(value) or ".." in value:
        raise InvalidValue(attribute.name, value, "a branch, a tag or a commit")


def _commit(_instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        raise InvalidValue(attribute.name, value, "a commit: 40 hexadecimal digits")


def _digest(_instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not _DIGEST.fullmatch(value)):
        raise InvalidValue(attribute.name, value, "64 hexadecimal digits in lower case")


def _safe_path(_instance: Any, attribute: Any, value: Any) -> None:
    """Accept what is safe to join to a folder of ours, on every system."""
    parts = value.split("/") if isinstance(value, str) else [""]
    if (
        not isinstance(value, str)
        or len(value) > _MAX_PATH
        or not value.isprintable()
        or re.search(r'[\\:*?"<>|]', value)
        or any(
            part in {"", ".", ".."} or part.startswith("-") or len(part.encode()) > _MAX_NAME_BYTES
            for part in parts
        )
    ):
        raise InvalidValue(attribute.name, value, "a path within the repository")


@attrs.frozen(kw_only=True)
class HubFile:
    """A file of a repository; ``path`` is safe to join to a folder.

    ``sha256`` is ``None`` for small files, which hubs keep without one.
    """

    path: str = attrs.field(validator=_safe_path)
    size_bytes: int = attrs.field(validator=_SIZE)
    sha256: str | None = attrs.field(default=None, validator=_digest)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


def _files(value: Iterable[HubFile]) -> tuple[HubFile, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class HubRevision:
    """The model files (``*.gguf``) of a repository at one commit."""

    repository: str = attrs.field(validator=_repository)
    commit: str = attrs.field(validator=_commit)
    files: tuple[HubFile, ...] = attrs.field(converter=_files)


@attrs.frozen(kw_only=True)
class FoundRepository:
    """A repository that a search found."""

    repository: str = attrs.field(validator=_repository)
    downloads: int = 0
    likes: int = 0
    updated_at: str | None = None
    """As the hub writes it: ISO 8601."""
    gated: bool = False
    """Whether its files are given to those only whom its authors have let in."""


@attrs.frozen(kw_only=True)
class RepositoryReference:
    """A repository, and which of its quantizations or files, if that was said."""

    repository: str = attrs.field(validator=_repository)
    quantization: str | None = None
    revision: str | None = attrs.field(default=None, validator=_revision)
    """A branch, a tag or a commit; ``None``: the repository's main branch."""


def parse_reference(text: str, revision: str | None = None) -> RepositoryReference:
    """Return what ``OWNER/NAME``, ``OWNER/NAME:QUANT``, or the address of its page means.

    Raises:
        InvalidRequest: it means no repository.
        InvalidValue: the revision cannot be one.
    """
    plain = text.strip()
    if "://" in plain:
        plain = urlsplit(plain).path.strip("/")
        # Of a page below: https://HUB/OWNER/NAME/tree/main
        plain = "/".join(plain.split("/")[:2])
    for prefix in ("hf.co/", "huggingface.co/", "hf:"):
        plain = plain.removeprefix(prefix)
    repository, _, quantization = plain.partition(":")
    try:
        return RepositoryReference(
            repository=repository, quantization=quantization or None, revision=revision
        )
    except InvalidValue as error:
        if error.field == "revision":
            raise
        raise InvalidRequest(
            f"'{text[:200]}' is no repository; write OWNER/NAME or OWNER/NAME:QUANT, "
            "`gglib model search TEXT` finds some",
            "model",
        ) from None
