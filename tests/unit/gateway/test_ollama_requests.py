"""From Ollama's requests to an engine's: options, durations, messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway import model as make_model

from gglib.domain.model import Capability, Model, ModelFacts
from gglib.errors import InvalidRequest
from gglib.gateway.ollama.durations import keep_alive_s
from gglib.gateway.ollama.options import sampling
from gglib.gateway.ollama.questions import chat_question, generate_question
from gglib.gateway.ollama.requests import ChatRequest, GenerateRequest, ShowRequest, read

MODEL = make_model(1, "m")
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
HELLO = [{"role": "user", "content": "hi"}]


def with_facts(**facts: Any) -> Model:
    """Return a model whose file says something."""
    return Model(id=1, name="m", paths=("/m.gguf",), size_bytes=1, facts=ModelFacts(**facts))  # type: ignore[arg-type]


def chat(model: Model = MODEL, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Return where a chat goes, and what is sent."""
    request = read(json.dumps({"messages": HELLO, **fields}).encode(), ChatRequest)
    question = chat_question(request, model)
    return question.path, json.loads(question.body)


def generate(model: Model = MODEL, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Return where a completion goes, and what is sent."""
    request = read(json.dumps({"prompt": "hi", **fields}).encode(), GenerateRequest)
    question = generate_question(request, model)
    return question.path, json.loads(question.body)


# keep_alive


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        (300, 300),
        (-1, None),
        (-0.5, None),
        ("0", 0),
        ("0s", 0),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("250ms", 0.25),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("-1m", None),
        ("-1", None),
        ("+5m", 300),
        (" 10 ", 10),
        (1e300, None),
        ("9" * 90, None),
    ],
)
def test_keep_alive_is_seconds_or_a_duration(said: float | str, seconds: float | None) -> None:
    """Of Go's; below 0 is for ever, and so is more than Go can count."""
    assert keep_alive_s(said) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "said", ["", "soon", "m5", "5m!", "5 m", "1d", "--1", "1e3", "\u0665m", "5m" * 100, "s", "."]
)
def test_what_is_no_duration_is_refused(said: str) -> None:
    """Days are none of Go's."""
    with pytest.raises(InvalidRequest, match="is no duration"):
        keep_alive_s(said)


@given(st.floats(allow_nan=True, allow_infinity=True) | st.text() | st.from_regex(r"[0-9.hmsnu-]+"))
def test_keep_alive_is_refused_or_never_below_zero(said: float | str) -> None:
    """Whatever comes."""
    try:
        seconds = keep_alive_s(said)
    except InvalidRequest:
        return
    assert seconds is None or 0 <= seconds < 1e10


@given(st.integers(0, 1000), st.integers(0, 59), st.integers(0, 59))
def test_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    """As Go prints them."""
    total = keep_alive_s(f"{hours}h{minutes}m{seconds}s")
    assert total == hours * 3600 + minutes * 60 + seconds


# options and format


def test_options_are_said_in_the_engines_words() -> None:
    """Those of loading, unknown ones and nulls are left out."""
    said = {
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40.0,
        "min_p": 0.05,
        "typical_p": 1,
        "seed": 7,
        "num_predict": 128,
        "num_keep": 5,
        "repeat_penalty": 1.1,
        "repeat_last_n": 64,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "stop": ["a", "b"],
        "num_ctx": 4096,
        "num_gpu": 1,
        "penalize_newline": True,
        "mirostat": None,
    }
    assert sampling(said) == {
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "typical_p": 1,
        "seed": 7,
        "max_tokens": 128,
        "n_keep": 5,
        "repeat_penalty": 1.1,
        "repeat_last_n": 64,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "stop": ["a", "b"],
    }
    assert sampling(None) == sampling({}) == {}


@pytest.mark.parametrize("said", [-1, -2, 0])
def test_answers_without_a_limit_are_sent_none(said: int) -> None:
    """Each engine has its own word for that: saying nothing is everybody's."""
    assert sampling({"num_predict": said}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", float("inf")),
        ("seed", 10**40),
        ("seed", float("nan")),
        ("seed", float("-inf")),
        ("top_k", 1.5),
        ("top_k", []),
        ("top_k", "1"),
        ("stop", 1),
        ("stop", [1]),
    ],
)
def test_option_of_the_wrong_type_is_named(name: str, value: object) -> None:
    """As Ollama names it."""
    with pytest.raises(InvalidRequest, match=f'option "{name}" must be'):
        sampling({name: value})


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from(["top_k", "seed", "top_p", "stop", "num_predict"]), _VALUES))
def test_options_are_refused_or_of_the_engines_types(said: dict[str, Any]) -> None:
    """Nothing else leaves, whatever comes."""
    try:
        found = sampling(said)
    except InvalidRequest:
        return
    assert all(type(found[name]) is int for name in ("top_k", "seed") if name in found)
    assert found.get("max_tokens", 1) > 0
    assert isinstance(found.get("stop", []), list)


def test_format_is_any_text_json_or_a_schema() -> None:
    """The old spelling of none is an empty text."""
    for nothing in ({}, {"format": None}, {"format": ""}):
        assert "response_format" not in chat(**nothing)[1]
    assert chat(format="json")[1]["response_format"] == {"type": "json_object"}
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = chat(format=schema)[1]["response_format"]
    assert (wanted["type"], wanted["json_schema"]["schema"]) == ("json_schema", schema)
    for wrong in ("yaml", 1, [schema], True):
        with pytest.raises(InvalidRequest, match="invalid format"):
            chat(format=wrong)


def test_what_engines_read_keeps_its_very_bytes() -> None:
    """Numbers of any size and form, in tools, schemas and calls."""
    tool = b'{"x": 1.0e0, "y": 123456789012345678901234567890}'
    call = b'{"function":{"name":"f","arguments":{"n":100000000000000000000000}}}'
    body = b'{"model":"m","format":%b,"tools":[%b],"messages":[{"role":"a","tool_calls":[%b]}]}'
    sent = chat_question(read(body % (tool, tool, call), ChatRequest), MODEL).body
    assert sent.count(tool) == 2
    assert b'{\\"n\\":100000000000000000000000}' in sent


# Chats


def test_chat_goes_where_every_engine_listens() -> None:
    """Always as a stream that counts."""
    path, sent = chat(options={"num_predict": 3, "seed": 1}, format="json", stream=False)
    assert path == "/v1/chat/completions"
    assert sent == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
        "seed": 1,
        "messages": HELLO,
        "response_format": {"type": "json_object"},
    }


def test_pictures_are_sent_as_what_their_bytes_are() -> None:
    """Text first; without any, none."""
    pictures = {
        "image/png": PNG,
        "image/jpeg": base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(8)).decode(),
        "image/gif": base64.b64encode(b"GIF89a" + bytes(8)).decode(),
        "image/webp": base64.b64encode(b"RIFF\0\0\0\0WEBPVP8 ").decode(),
        "image/bmp": base64.b64encode(b"BM" + bytes(8)).decode(),
    }
    message = {"role": "user", "content": "what?", "images": list(pictures.values())}
    _, sent = chat(messages=[message, {"role": "user", "images": [f"data:image/png;base64,{PNG}"]}])
    first, second = sent["messages"]
    assert first["content"][0] == {"type": "text", "text": "what?"}
    urls = [part["image_url"]["url"] for part in first["content"][1:]]
    assert urls == [f"data:{kind};base64,{image}" for kind, image in pictures.items()]
    assert [part["type"] for part in second["content"]] == ["image_url"]


def test_tools_and_their_answers_find_each_other() -> None:
    """Ollama's calls have no ids of old, its answers the tool's name; OpenAI's need ids."""
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    calls = [
        {"function": {"name": "add", "arguments": {"a": 1}}},
        {"function": {"name": "mul", "arguments": {}}},
        {"function": {"name": "add", "arguments": {"a": 2}}},
    ]
    messages = [
        *HELLO,
        {"role": "assistant", "thinking": "hm", "tool_calls": calls},
        {"role": "tool", "tool_name": "mul", "content": "m"},
        {"role": "tool", "tool_name": "add", "content": "first"},
        {"role": "tool", "content": "second"},
    ]
    _, sent = chat(messages=messages, tools=[tool])
    _, asked, mul, first, second = sent["messages"]
    ids = [call["id"] for call in asked["tool_calls"]]
    assert sent["tools"] == [tool]
    assert len(set(ids)) == 3
    assert [json.loads(call["function"]["arguments"]) for call in asked["tool_calls"]] == [
        {"a": 1},
        {},
        {"a": 2},
    ]
    assert asked["reasoning_content"] == "hm"
    assert [each["tool_call_id"] for each in (mul, first, second)] == [ids[1], ids[0], ids[2]]


def test_ids_of_calls_are_kept_where_they_are_said() -> None:
    """And an answer to nothing still has one."""
    call = {"id": "c9", "function": {"name": "add", "arguments": {}}}
    messages = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c9", "content": "1"},
        {"role": "tool", "content": "stray"},
        {"role": "tool", "tool_call_id": "x", "content": "stray"},
    ]
    _, sent = chat(messages=messages)
    assert sent["messages"][0]["tool_calls"][0]["id"] == "c9"
    assert [each["tool_call_id"] for each in sent["messages"][1:]] == ["c9", "call_0", "x"]


@pytest.mark.parametrize(
    ("think", "sent"),
    [
        (True, {"enable_thinking": True}),
        (False, {"enable_thinking": False}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_thinking_is_the_templates_to_do(think: object, sent: dict[str, Any]) -> None:
    """Where nothing is known of the model, it is asked."""
    for model in (MODEL, with_facts(chat_template="{{x}}", capabilities={Capability.REASONING})):
        assert chat(model, think=think)[1]["chat_template_kwargs"] == sent
    assert "chat_template_kwargs" not in chat()[1]


def test_model_that_cannot_think_is_not_asked_to() -> None:
    """In Ollama's words; not to think is no problem for it."""
    plain = with_facts(chat_template="{{x}}", capabilities={Capability.CHAT})
    with pytest.raises(InvalidRequest, match='"m" does not support thinking'):
        chat(plain, think=True)
    assert chat(plain, think=False)


def test_probabilities_are_asked_for() -> None:
    """Each route has its own way."""
    _, sent = chat(logprobs=True, top_logprobs=2)
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
    assert "top_logprobs" not in chat(logprobs=True)[1]
    assert generate(raw=True, logprobs=True, top_logprobs=2)[1]["logprobs"] == 2


# Completions


def test_prompt_is_a_chat_of_one_message() -> None:
    """With the system's before it, and pictures."""
    path, sent = generate(system="be brief", images=[PNG])
    assert path == "/v1/chat/completions"
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["messages"][1]["content"][0] == {"type": "text", "text": "hi"}


def test_raw_prompt_goes_as_it_is() -> None:
    """A schema is told in both words that engines have for it."""
    path, sent = generate(raw=True, options={"num_predict": 2}, format={"type": "object"})
    assert path == "/v1/completions"
    assert (sent["prompt"], sent["max_tokens"]) == ("hi", 2)
    assert sent["json_schema"] == {"type": "object"}
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert generate(raw=True, format="json")[1]["json_schema"] == {}


def test_model_without_a_chat_template_is_sent_no_chat() -> None:
    """An engine would make up a template for it."""
    base = with_facts(capabilities={Capability.COMPLETION})
    path, sent = generate(base, system="be brief")
    assert (path, sent["prompt"]) == ("/v1/completions", "be brief\n\nhi")


def test_suffix_is_filled_up_to() -> None:
    """In llama-server's own words."""
    path, sent = generate(suffix="end", options={"num_predict": 2})
    assert path == "/infill"
    assert (sent["input_prefix"], sent["input_suffix"], sent["n_predict"]) == ("hi", "end", 2)
    assert "max_tokens" not in sent


def test_unknown_fields_are_ignored_and_known_ones_checked() -> None:
    """As Ollama does."""
    assert read(b'{"model":"m","verbose":true}', ShowRequest).model == "m"
    with pytest.raises(InvalidRequest, match=r"at `\$\.stream`"):
        read(b'{"model":"m","stream":"yes"}', ChatRequest)


@given(st.binary())
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    """Never another error."""
    for kind in (ChatRequest, GenerateRequest, ShowRequest):
        try:
            read(body, kind)
        except InvalidRequest:
            continue
