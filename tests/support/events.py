"""Every event there is, and one of each."""

from __future__ import annotations

import inspect
from typing import Any

import attrs

from gglib.domain import events
from gglib.domain.events import Event

__all__ = ["EVENTS", "event_sample"]

EVENTS: list[type[Any]] = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, Event) and kind is not Event
]

_SAMPLES: dict[str, Any] = {
    "adapter_name": "strange",
    "at": 1.5,
    "client": "127.0.0.1",
    "complete": True,
    "completion_tokens": 7,
    "duration_s": 0.75,
    "first_byte_s": 0.125,
    "address": "http://127.0.0.1:8080",
    "at_next_start": ("gateway.port",),
    "callback": "tell",
    "changed": ("models.qwen.ttl_s",),
    "context_size": 4096,
    "device": "cpu",
    "full_context_size": 32768,
    "group": "gglib.engines",
    "key": "pool.warmup",
    "load_s": 2.25,
    "model_id": 7,
    "model_name": "qwen",
    "pull_id": "01JZ0000000000000000000000",
    "repository": "acme/tiny",
    "pid": 4321,
    "port": 9001,
    "prompt_tokens": 9,
    "queue_wait_s": 0.25,
    "reason": "it fell over",
    "request_id": "req_1",
    "route": "/v1/embeddings",
    "status": 200,
    "streamed": False,
    "server_id": "01ABC",
    "stop_s": 0.5,
}


def event_sample(kind: type[Any]) -> Any:
    """Return an event with every field filled."""
    return kind(**{field.name: _SAMPLES[field.name] for field in attrs.fields(kind)})
