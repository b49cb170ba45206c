"""Errors as OpenAI's API tells them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import ERRORS, error_sample

from gglib import errors
from gglib.errors import GglibError, InvalidRequest, ModelNotFound, QueueFull, RateLimited
from gglib.gateway.problems import PROBLEMS, answer_for, error_object, problem_for

#: What the official SDK tries again by itself, if nothing tells it otherwise.
RETRIED = {408, 409, 429, *range(500, 600)}
TYPES = {
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
    "server_error",
}
_CLIENT_TYPES = TYPES - {"server_error"}


def test_every_error_is_mapped() -> None:
    """A new error is given its status on purpose, not by its family's."""
    assert set(PROBLEMS) == set(ERRORS)


@pytest.mark.parametrize("kind", ERRORS)
def test_error_is_told_in_the_official_form(kind: type[GglibError]) -> None:
    """Status, type, code and message; nothing else, and nothing missing."""
    error = error_sample(kind)
    answer = answer_for(error)
    (name, told), *more = json.loads(answer.body).items()
    assert (name, more) == ("error", [])
    assert set(told) == {"message", "type", "param", "code"}
    assert told == error_object(error)
    assert told["message"] == str(error)
    assert told["type"] in TYPES
    assert (answer.status < 500) == (told["type"] in _CLIENT_TYPES)
    assert dict(answer.headers)["content-type"] == "application/json"


@pytest.mark.parametrize("kind", ERRORS)
def test_sdk_is_told_whether_to_try_again(kind: type[GglibError]) -> None:
    """Exactly where it would otherwise decide by itself; a retry is given its time."""
    answer = answer_for(error_sample(kind))
    headers = dict(answer.headers)
    assert ("x-should-retry" in headers) == (answer.status in RETRIED)
    retry = problem_for(error_sample(kind)).retry
    assert headers.get("x-should-retry", "false") == ("true" if retry else "false")
    if retry:
        assert int(headers["retry-after"]) >= 1
        assert kind.retryable


@given(st.floats(0, 1e6))
def test_retry_after_is_whole_seconds_and_never_too_early(retry_after_s: float) -> None:
    """A client that obeys is not sent away a second time."""
    for error in (QueueFull("m", 1, retry_after_s), RateLimited("requests", retry_after_s)):
        told = int(dict(answer_for(error).headers)["retry-after"])
        assert max(1.0, retry_after_s) <= told < max(1.0, retry_after_s) + 1


def test_status_may_be_said_more_exactly() -> None:
    """A body that is too large is still an invalid request; the header follows the status."""
    error = InvalidRequest("too large", None, "body_too_large")
    answer = answer_for(error, status=413)
    assert answer.status == 413
    assert json.loads(answer.body)["error"]["code"] == "body_too_large"
    assert "x-should-retry" not in dict(answer.headers)
    assert dict(answer_for(error, status=408).headers)["x-should-retry"] == "false"


def test_parameter_at_fault_is_named() -> None:
    """By the request's own word for it."""
    assert error_object(InvalidRequest("wrong", "stream"))["param"] == "stream"
    assert error_object(ModelNotFound("x"))["param"] == "model"
    assert error_object(GglibError("wrong"))["param"] is None


def test_missing_key_is_challenged() -> None:
    """RFC 9110 wants a 401 to say how to authenticate."""
    headers = dict(answer_for(errors.Unauthorized("no key")).headers)
    assert headers["www-authenticate"] == "Bearer"


def test_strangers_error_is_told_as_its_nearest_relative() -> None:
    """An adapter may raise an error of its own below ours."""

    @attrs.define(eq=False)
    class TooHot(errors.EngineDied):
        """An engine that melts."""

    melted: Any = TooHot("m", "it melts")
    assert problem_for(melted) == PROBLEMS[errors.EngineDied]
