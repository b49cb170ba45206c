"""Errors as OpenAI's API tells them: the one place where an error meets an HTTP status."""

from __future__ import annotations

import math

import attrs
import msgspec

from gglib import errors
from gglib.errors import GglibError

__all__ = ["PROBLEMS", "Problem", "ProblemAnswer", "answer_for", "error_object", "problem_for"]


@attrs.frozen
class Problem:
    """An HTTP answer to an error: status, OpenAI's error type and code."""

    status: int
    type: str
    code: str | None
    retry: bool = False
    """Whether the official SDK should try again (it does so on 408, 409, 429 and 5xx)."""


_INVALID = "invalid_request_error"

#: Most specific class first wins, by method resolution order.
PROBLEMS: dict[type[GglibError], Problem] = {
    errors.GglibError: Problem(500, "server_error", "internal_error"),
    errors.InvalidValue: Problem(400, _INVALID, "invalid_value"),
    errors.InvalidRequest: Problem(400, _INVALID, None),
    errors.ConfigurationError: Problem(500, "server_error", "configuration_error"),
    errors.NotConfigured: Problem(503, "server_error", "not_configured"),
    errors.ModelError: Problem(400, _INVALID, "model_error"),
    errors.ModelNotFound: Problem(404, _INVALID, "model_not_found"),
    errors.AmbiguousModel: Problem(400, _INVALID, "model_ambiguous"),
    errors.ModelExists: Problem(409, _INVALID, "model_exists"),
    errors.ModelFileMissing: Problem(503, "server_error", "model_file_missing"),
    errors.InvalidModelFile: Problem(503, "server_error", "model_file_invalid"),
    errors.HubError: Problem(502, "server_error", "hub_error"),
    errors.RepositoryNotFound: Problem(404, _INVALID, "repository_not_found"),
    errors.QuantizationNotFound: Problem(404, _INVALID, "quantization_not_found"),
    errors.HubAccessDenied: Problem(403, "permission_error", "hub_access_denied"),
    errors.HubUnavailable: Problem(503, "server_error", "hub_unavailable", retry=True),
    errors.HubAnswerWrong: Problem(502, "server_error", "hub_answer_wrong"),
    errors.EngineError: Problem(503, "server_error", "engine_error"),
    errors.EngineNotFound: Problem(503, "server_error", "engine_not_found"),
    errors.EngineCannot: Problem(503, "server_error", "engine_cannot"),
    errors.EngineInstallFailed: Problem(503, "server_error", "engine_install_failed"),
    errors.EngineInUse: Problem(409, _INVALID, "engine_in_use"),
    errors.EngineDied: Problem(502, "server_error", "engine_died"),
    errors.ServerError: Problem(503, "server_error", "server_failed"),
    errors.NotRunning: Problem(409, _INVALID, "not_running"),
    errors.StartFailed: Problem(503, "server_error", "start_failed"),
    errors.StartTimeout: Problem(503, "server_error", "start_timeout"),
    errors.ServerUntrusted: Problem(502, "server_error", "server_untrusted"),
    errors.PortInUse: Problem(503, "server_error", "port_in_use"),
    errors.StopFailed: Problem(500, "server_error", "stop_failed"),
    errors.NodeUnreachable: Problem(503, "server_error", "node_unreachable", retry=True),
    errors.DoesNotFit: Problem(503, "server_error", "does_not_fit"),
    errors.NoRoom: Problem(503, "server_error", "no_room"),
    errors.NotStarted: Problem(503, "server_error", "not_started", retry=True),
    errors.BreakerOpen: Problem(503, "server_error", "breaker_open", retry=True),
    errors.AdmissionError: Problem(403, _INVALID, "refused"),
    errors.QueueFull: Problem(429, "rate_limit_error", "queue_full", retry=True),
    errors.QueueTimeout: Problem(503, "server_error", "queue_timeout", retry=True),
    errors.Unloaded: Problem(503, "server_error", "model_unloaded", retry=True),
    errors.ShuttingDown: Problem(503, "server_error", "shutting_down", retry=True),
    errors.Unauthorized: Problem(401, "authentication_error", "invalid_api_key"),
    errors.Forbidden: Problem(403, "permission_error", "forbidden"),
    errors.RateLimited: Problem(429, "rate_limit_error", "rate_limit_exceeded", retry=True),
    errors.DownloadError: Problem(502, "server_error", "download_error"),
    errors.DownloadFailed: Problem(502, "server_error", "download_failed", retry=True),
    errors.DownloadNotFound: Problem(404, _INVALID, "download_not_found"),
    errors.DownloadRefused: Problem(403, _INVALID, "download_refused"),
    errors.HashMismatch: Problem(502, "server_error", "hash_mismatch"),
    errors.StorageError: Problem(500, "server_error", "storage_error"),
    errors.DataDirectoryUnusable: Problem(500, "server_error", "data_directory_unusable"),
    errors.DatabaseCorrupt: Problem(500, "server_error", "database_corrupt"),
    errors.DatabaseTooNew: Problem(500, "server_error", "database_too_new"),
    errors.PullFailed: Problem(502, "server_error", "pull_failed"),
    errors.PullNotFound: Problem(404, _INVALID, "pull_not_found"),
    errors.NoSpace: Problem(507, "server_error", "no_space"),
    errors.GatewayRunning: Problem(409, _INVALID, "gateway_running"),
    errors.GatewayNotRunning: Problem(503, "server_error", "gateway_not_running"),
    errors.GatewayUnreachable: Problem(503, "server_error", "gateway_unreachable", retry=True),
    errors.AdapterError: Problem(500, "server_error", "adapter_error"),
}


@attrs.frozen
class ProblemAnswer:
    """An error, ready to be sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def problem_for(error: GglibError) -> Problem:
    """Return how ``error`` is told."""
    for cls in type(error).__mro__:
        if cls in PROBLEMS:
            return PROBLEMS[cls]
    raise LookupError(type(error).__name__)  # pragma: no cover - GglibError is mapped


def error_object(error: GglibError) -> dict[str, object]:
    """Return OpenAI's error object, as it stands under ``error`` in a body or an event."""
    problem = problem_for(error)
    param = getattr(error, "param", None)
    if isinstance(error, errors.ModelNotFound):
        param = "model"
    code = problem.code
    if isinstance(error, errors.InvalidRequest) and error.code is not None:
        code = error.code
    return {"message": str(error), "type": problem.type, "param": param, "code": code}


def answer_for(error: GglibError, *, status: int | None = None) -> ProblemAnswer:
    """Return the whole answer to ``error``; ``status`` overrides the mapped one (413, 431 …)."""
    problem = problem_for(error)
    actual = status or problem.status
    headers = [("content-type", "application/json")]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is None and problem.retry:
        retry_after_s = 1.0
    if retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(retry_after_s)))))
    if actual in {408, 409, 429} or actual >= 500:
        headers.append(("x-should-retry", "true" if problem.retry else "false"))
    if actual == 405:
        headers.append(("allow", "POST"))
    if actual == 401:
        headers.append(("www-authenticate", "Bearer"))
    body = msgspec.json.encode({"error": error_object(error)})
    return ProblemAnswer(actual, tuple(headers), body)
