"""The gateway's own routes."""

from __future__ import annotations

from typing import Any

from gglib.gateway.answers import (
    Alive,
    ModelList,
    ModelObject,
    Pinned,
    PoolView,
    Queue,
    Ready,
    Reloaded,
    Running,
    Story,
    Unloaded,
)
from gglib.gateway.openapi.operations import Access, Body, Operation, Parameter, Reply

__all__ = ["MODEL", "NOT_LOADED", "NO_SUCH_MODEL", "OPERATIONS"]

_JSON = "application/json"
_TEXT = {"type": "string"}

NO_SUCH_MODEL = "No model of that name (`model_not_found`); the message names close ones"
AMBIGUOUS = "Several models answer to the name (`model_ambiguous`), or the request is malformed"
NOT_LOADED = (
    "The engine did not become ready, or cannot be had here (`start_failed`, `does_not_fit`, "
    "`engine_not_found`, …); with `retry-after` if it is worth trying again"
)
MODEL = Parameter(
    name="name",
    about="A model's name or an alias; it may hold slashes",
    schema={"type": "string", "minLength": 1},
    example="qwen",
)


def _says(about: str, of: Any, example: Any = None) -> dict[str, Reply]:
    return {"200": Reply(about, (Body(_JSON, of, example),))}


def _verb(verb: str, summary: str, about: str, of: Any, **more: Any) -> Operation:
    refusals = {400: AMBIGUOUS, 404: NO_SUCH_MODEL, **more.pop("refusals", {})}
    return Operation(
        method="post",
        path=f"/admin/models/{{name}}/{verb}",
        name=f"{verb}Model",
        tag="Administration",
        summary=summary,
        about=about,
        access=Access.ADMIN,
        parameters=(MODEL, *more.pop("parameters", ())),
        replies=_says("Done", of),
        refusals=refusals,
    )


_UNLOADS = {409: "The model is not loaded (`not_running`)"}

OPERATIONS = (
    Operation(
        method="get",
        path="/v1/models",
        name="listModels",
        tag="Models",
        summary="List the models",
        about="As OpenAI lists them, with what gglib knows besides under `gglib`.",
        replies=_says("The models", ModelList),
    ),
    Operation(
        method="get",
        path="/v1/models/{name}",
        name="showModel",
        tag="Models",
        summary="Show one model",
        parameters=(MODEL,),
        replies=_says("The model", ModelObject),
        refusals={400: AMBIGUOUS, 404: NO_SUCH_MODEL},
    ),
    Operation(
        method="get",
        path="/running",
        name="listRunning",
        tag="Models",
        summary="List what is in memory, or on its way there",
        about="A model with several servers is there several times, "
        "with the same `queued` in each.",
        replies=_says("The servers", Running),
    ),
    Operation(
        method="get",
        path="/health",
        name="health",
        tag="Gateway",
        summary="Tell that the gateway is alive",
        access=Access.ANYBODY,
        replies=_says("It is", Alive, {"status": "ok"}),
    ),
    Operation(
        method="get",
        path="/ready",
        name="ready",
        tag="Gateway",
        summary="Tell that the gateway takes requests",
        about="It listens no more when it does not.",
        access=Access.ANYBODY,
        replies=_says("It does", Ready, {"status": "ready"}),
    ),
    Operation(
        method="get",
        path="/metrics",
        name="metrics",
        tag="Gateway",
        summary="Tell every metric, for Prometheus",
        replies={"200": Reply("Prometheus' text format", (Body("text/plain", _TEXT),))},
    ),
    Operation(
        method="get",
        path="/",
        name="root",
        tag="Gateway",
        summary="Tell that somebody is there",
        about="Programs that speak Ollama ask this first. A browser is shown to `/docs`.",
        replies={
            "200": Reply("It is", (Body("text/plain", _TEXT, "gglib is running"),)),
            "302": Reply("For who prefers `text/html`", headers={"location": "Where the page is"}),
        },
    ),
    Operation(
        method="get",
        path="/docs",
        name="docs",
        tag="Gateway",
        summary="Show this document as a page",
        replies={"200": Reply("A page, without scripts", (Body("text/html", _TEXT),))},
    ),
    Operation(
        method="get",
        path="/openapi.json",
        name="openapi",
        tag="Gateway",
        summary="Tell this document",
        replies=_says("OpenAPI 3.1", {"type": "object"}),
    ),
    _verb(
        "load",
        "Load a model",
        "Answers when it is ready, with what is in memory then.",
        Running,
        refusals={
            429: "Too many requests wait already (`queue_full`)",
            503: NOT_LOADED,
        },
    ),
    _verb(
        "unload",
        "Unload a model",
        "Lets what is in flight end, and answers when all its servers are gone.",
        Unloaded,
        parameters=(
            Parameter(
                name="force",
                where="query",
                about="Cut what is in flight",
                schema={"type": "boolean", "default": False},
            ),
        ),
        refusals=_UNLOADS,
    ),
    _verb(
        "drain",
        "Unload a model once it has served whoever waits for it",
        "As `unload`, but nobody that waits already is refused.",
        Unloaded,
        refusals=_UNLOADS,
    ),
    _verb(
        "pin",
        "Keep a model in memory once it is there",
        "Until the gateway ends, or it is unpinned.",
        Pinned,
    ),
    _verb("unpin", "Let a model go like any other", "", Pinned),
    Operation(
        method="get",
        path="/admin/queue",
        name="showQueue",
        tag="Administration",
        summary="List who waits",
        access=Access.ADMIN,
        replies=_says("In the order in which they stand", Queue),
    ),
    Operation(
        method="get",
        path="/admin/pool",
        name="showPool",
        tag="Administration",
        summary="Show what is in memory, what there is room for, and what has happened",
        access=Access.ADMIN,
        replies=_says("The pool", PoolView),
    ),
    Operation(
        method="get",
        path="/admin/why/{name}",
        name="why",
        tag="Administration",
        summary="Tell why a model is in memory, was evicted, or waits",
        access=Access.ADMIN,
        parameters=(MODEL,),
        replies=_says("Its story", Story),
        refusals={400: AMBIGUOUS, 404: NO_SUCH_MODEL},
    ),
    Operation(
        method="get",
        path="/admin/events",
        name="streamEvents",
        tag="Administration",
        summary="Tell events as they happen, from now on",
        about="Each has its name as `event` and its fields as JSON in `data`. Who does not keep "
        "up loses the oldest, and is told how many by an event `dropped` with `count`.",
        access=Access.ADMIN,
        replies={"200": Reply("Until the client leaves", (Body("text/event-stream"),))},
    ),
    Operation(
        method="get",
        path="/admin/logs/{name}",
        name="streamLogs",
        tag="Administration",
        summary="Tell what a model's engine has printed",
        about="Its newest server's, running or not: events `line` with `text`, "
        "then `end` with `server_id`.",
        access=Access.ADMIN,
        parameters=(
            MODEL,
            Parameter(
                name="tail",
                where="query",
                about="How many lines, from the end",
                schema={"type": "integer", "minimum": 0, "maximum": 10_000, "default": 50},
            ),
            Parameter(
                name="follow",
                where="query",
                about="Tell new lines, too, until the server ends",
                schema={"type": "boolean", "default": False},
            ),
        ),
        replies={"200": Reply("The lines", (Body("text/event-stream"),))},
        refusals={
            400: AMBIGUOUS,
            404: NO_SUCH_MODEL,
            409: "It has no server, and had none (`not_running`)",
        },
    ),
    Operation(
        method="post",
        path="/admin/config/reload",
        name="reloadConfig",
        tag="Administration",
        summary="Take up changed settings",
        about="All of them, or, with an error in one, nothing.",
        access=Access.ADMIN,
        replies=_says("What differs", Reloaded),
        refusals={
            400: "The settings are wrong (`configuration_error`); nothing has changed",
            503: "There is no file to read them from (`not_configured`)",
        },
    ),
)
