"""Which requests go to an engine, and where their model is named."""

from __future__ import annotations

import urllib.parse

__all__ = [
    "INFERENCE_PATHS",
    "RELAYED_ROUTES",
    "UPSTREAM_PREFIX",
    "UPSTREAM_ROUTE",
    "may_change",
    "split_upstream",
]

#: POSTs that name their model in a JSON body, or in a field of a form, and go to an engine as
#: they are. Source: OpenAI's and Anthropic's APIs; llama-server's own routes, build 11434.
INFERENCE_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/images/edits",
        "/infill",
        "/completion",
        "/rerank",
        "/tokenize",
        "/detokenize",
        "/apply-template",
    }
)

#: Before a model's name and a path of its server.
UPSTREAM_PREFIX = b"/upstream/"
#: What stands for all of them where requests are counted.
UPSTREAM_ROUTE = "/upstream/{model}/{path}"
RELAYED_ROUTES = INFERENCE_PATHS | {UPSTREAM_ROUTE}

_READING = frozenset({b"GET", b"HEAD", b"OPTIONS"})
#: What tells of other people's prompts.
_PRIVATE = "/slots"


def split_upstream(raw_path: bytes) -> list[tuple[str, bytes]]:
    """Return what ``/upstream/MODEL/PATH`` can mean: name and path, the longest name first.

    A name may hold slashes. ``raw_path`` is percent-encoded; so is the path, which goes on as
    it is, while the name is decoded.
    """
    rest = raw_path[len(UPSTREAM_PREFIX) :]
    meanings = []
    at = len(rest)
    while at > 0:
        name = urllib.parse.unquote(rest[:at].decode("ascii", "replace"))
        meanings.append((name, rest[at:] or b"/"))
        at = rest.rfind(b"/", 0, at)
    return meanings


def may_change(method: bytes, path: str) -> bool:
    """Whether ``path`` of a server may change it, or tell what others do, if it is asked so."""
    if method == b"POST" and path in INFERENCE_PATHS:
        return False
    tricky = not {".", ".."}.isdisjoint(path.split("/"))
    return method not in _READING or path.startswith(_PRIVATE) or tricky
