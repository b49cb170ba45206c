"""What is said of one route: the rows of which the OpenAPI document is made."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

__all__ = ["Access", "Body", "Operation", "Parameter", "Reply", "Shape"]

_NOTHING: Mapping[Any, Any] = {}


class Access(StrEnum):
    """Who may ask."""

    ANYBODY = "anybody"
    KEY = "key"
    """With a key, where there are keys."""
    ADMIN = "admin"


class Shape(StrEnum):
    """Whose errors are told."""

    OPENAI = "openai"
    OLLAMA = "ollama"


@attrs.frozen(kw_only=True)
class Parameter:
    """A part of the path, or of the query."""

    name: str
    about: str
    schema: Mapping[str, Any]
    where: str = "path"
    example: Any = None


@attrs.frozen
class Body:
    """A request's or an answer's body in one form."""

    media_type: str
    of: Any = None
    """The type whose schema it has; or a schema; ``None``: anything."""
    example: Any = None
    more: Mapping[str, Any] = _NOTHING
    """What its schema says besides."""


@attrs.frozen
class Reply:
    """An answer that is no refusal."""

    about: str
    bodies: tuple[Body, ...] = ()
    headers: Mapping[str, str] = _NOTHING
    """What headers it has besides, and what each says."""


@attrs.frozen(kw_only=True)
class Operation:
    """A method of a route."""

    method: str
    path: str
    name: str
    """``operationId``: unique, and stable, since programs are generated from it."""
    tag: str
    summary: str
    about: str = ""
    access: Access = Access.KEY
    shape: Shape = Shape.OPENAI
    parameters: tuple[Parameter, ...] = ()
    body: tuple[Body, ...] = ()
    replies: Mapping[str, Reply]
    """By status; ``default``: any other."""
    refusals: Mapping[int, str] = _NOTHING
    """Statuses of its own, and when; those that any request may get are not listed."""
