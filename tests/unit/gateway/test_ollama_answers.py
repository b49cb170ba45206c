"""From an engine's stream to Ollama's words, and errors in those."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import ERRORS, error_sample

from gglib.errors import EngineDied, GglibError, ModelNotFound
from gglib.gateway.ollama.errors import EngineRefused, as_json, reason_in, refusal_of
from gglib.gateway.ollama.pieces import AnswerReader, Counts, Events, Piece
from gglib.gateway.ollama.words import ChatWords, GenerateWords
from gglib.gateway.problems import problem_for

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """Return the data of an event."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return json.dumps({"choices": [choice], **more}).encode()


def read(*events: bytes) -> tuple[list[Piece], Piece]:
    """Return the pieces of an answer, and the last."""
    reader = AnswerReader("m")
    pieces = [piece for event in events if (piece := reader.take(event)) is not None]
    return pieces, reader.last()


# Events


@given(st.lists(TEXTS, max_size=6), st.data())
def test_events_come_whole_however_the_bytes_are_cut(texts: list[str], data: Any) -> None:
    """Comments and names of events are passed over; only line feeds end a line."""
    said = [json.dumps({"content": text}, ensure_ascii=False).encode() for text in texts]
    stream = b": hello\n\n" + b"".join(b"event: x\r\ndata: %b\r\n\r\n" % each for each in said)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    events = Events()
    assert [event for piece in pieces for event in events.feed(piece)] == said


@given(st.lists(TEXTS, max_size=8))
def test_pieces_add_up_to_what_was_said(texts: list[str]) -> None:
    """Nothing is lost, and nothing is said that says nothing."""
    pieces, last = read(*(chunk({"content": text}) for text in texts), chunk(finish="stop"))
    assert "".join(piece.text for piece in pieces) == "".join(texts)
    assert len(pieces) == sum(bool(text) for text in texts)
    assert (last.done_reason, last.says_something) == ("stop", False)


@given(TEXTS)
def test_no_text_breaks_a_line(text: str) -> None:
    """For whichever reader; and it is the same text behind."""
    line = as_json({"content": text})
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == {"content": text}


def test_counts_and_times_are_the_engines() -> None:
    """From whichever event says them; times in nanoseconds."""
    usage = {"prompt_tokens": 25, "completion_tokens": 2}
    timings = {"prompt_ms": 0.64, "predicted_ms": 1.5, "cache_n": 3}
    end = json.dumps({"choices": [], "usage": usage, "timings": timings}).encode()
    _, last = read(chunk({"content": "a"}), chunk(finish="length"), end, b"[DONE]")
    assert last == Piece(
        done_reason="length",
        counts=Counts(prompt_tokens=25, prompt_ns=640_000, answer_tokens=2, answer_ns=1_500_000),
    )


def test_completion_and_infill_are_read_alike() -> None:
    """Both have an event for the end; an infill's says how in its own words."""
    text = json.dumps({"choices": [{"text": "a", "finish_reason": None}]}).encode()
    end = json.dumps({"choices": [{"text": "", "finish_reason": "length"}]}).encode()
    pieces, last = read(text, end)
    assert ([piece.text for piece in pieces], last.done_reason) == (["a"], "length")
    first = b'{"content":"a","stop":false,"tokens_predicted":1,"tokens_evaluated":6}'
    for kind, reason in ((b"limit", "length"), (b"eos", "stop")):
        stop = b'{"content":"","stop":true,"stop_type":"%b","tokens_predicted":2}' % kind
        pieces, last = read(first, stop)
        assert ([piece.text for piece in pieces], last.done_reason) == (["a"], reason)
        assert (last.counts.prompt_tokens, last.counts.answer_tokens) == (6, 2)


def test_probabilities_keep_what_ollama_has() -> None:
    """And nothing of the engine's own."""
    token = {"id": 1, "token": "a", "logprob": -0.5, "bytes": [97]}
    logprobs = {"content": [{**token, "top_logprobs": [token]}]}
    event = json.dumps({"choices": [{"delta": {"content": "a"}, "logprobs": logprobs}]}).encode()
    (piece,), _ = read(event, chunk(finish="stop"))
    kept = {"token": "a", "logprob": -0.5, "bytes": [97]}
    assert piece.logprobs == ({**kept, "top_logprobs": [kept]},)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_has_two_names(field: str) -> None:
    """llama-server's, and vLLM's of late."""
    (piece,), _ = read(chunk({field: "hm"}), chunk(finish="stop"))
    assert (piece.thinking, piece.text) == ("hm", "")


def fragment(index: int, arguments: str, name: str | None = None) -> bytes:
    """Return a piece of a call."""
    call = {"index": index, "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [call]})


def test_calls_are_gathered_each_by_its_index() -> None:
    """Fragments of several may come mixed; some engines send objects."""
    whole = {"index": 2, "function": {"name": "c", "arguments": {"z": 1}}}
    pieces, last = read(
        fragment(1, '{"x"', "b"),
        fragment(0, "", "a"),
        fragment(1, ":[1]}"),
        chunk({"tool_calls": [whole]}),
        chunk(finish="tool_calls"),
    )
    assert pieces == []
    assert last.done_reason == "stop"
    assert json.loads(as_json(last.tool_calls)) == [
        {"function": {"index": 0, "name": "a", "arguments": {}}},
        {"function": {"index": 1, "name": "b", "arguments": {"x": [1]}}},
        {"function": {"index": 2, "name": "c", "arguments": {"z": 1}}},
    ]


def test_numbers_in_arguments_keep_their_form() -> None:
    """However long."""
    arguments = '{"n":123456789012345678901234567890,"x":1.0e0}'
    _, last = read(fragment(0, arguments, "f"), chunk(finish="tool_calls"))
    assert arguments.encode() in as_json(last.tool_calls)


def test_call_that_was_cut_off_is_none() -> None:
    """The reason says so; one that is no JSON without a reason is an error."""
    _, last = read(fragment(0, '{"x"', "a"), chunk(finish="length"))
    assert (last.tool_calls, last.done_reason) == ((), "length")
    with pytest.raises(EngineRefused, match="called 'a'"):
        read(fragment(0, "[1]", "a"), chunk(finish="tool_calls"))


def test_answer_without_an_end_is_no_answer() -> None:
    """Even if it says that it is done."""
    with pytest.raises(EngineDied, match="broke off"):
        read(chunk({"content": "a"}), b"[DONE]")


@given(st.binary() | TEXTS.map(str.encode))
def test_no_event_does_more_than_be_refused(event: bytes) -> None:
    """Whatever an engine writes."""
    try:
        AnswerReader("m").take(event)
    except (EngineDied, EngineRefused):
        return


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"message": "no"}, "no"),
        ("no", "no"),
        (["no"], "the engine failed: ['no']"),
    ],
)
def test_reason_is_found_wherever_it_stands(said: object, reason: str) -> None:
    """llama-server's, vLLM's, and anybody's."""
    assert reason_in(said) == reason


# Words


def test_whole_answer_says_what_its_pieces_say() -> None:
    """In both forms."""
    pieces = [Piece(thinking="h"), Piece(thinking="m"), Piece(text="a"), Piece(text="b")]
    last = Piece(done_reason="stop", counts=Counts(prompt_tokens=1, answer_tokens=2, answer_ns=3))
    chat, generate = ChatWords("m").whole(pieces, last), GenerateWords("m").whole(pieces, last)
    assert chat["message"] == {"role": "assistant", "content": "ab", "thinking": "hm"}
    assert (generate["response"], generate["thinking"]) == ("ab", "hm")
    for answer in (chat, generate):
        assert (answer["done"], answer["done_reason"]) == (True, "stop")
        assert (answer["eval_count"], answer["eval_duration"]) == (2, 3)
        assert answer["prompt_eval_duration"] >= 0


def test_times_that_no_engine_says_are_measured() -> None:
    """Counts cannot be: they are left out."""
    words = ChatWords("m")
    words.asked()
    words.part(Piece(text="a"))
    end = words.end(Piece(done_reason="stop"))
    assert end["eval_duration"] >= 0
    assert end["total_duration"] >= end["load_duration"] + end["prompt_eval_duration"]
    assert "eval_count" not in end


# Errors


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_a_text_with_its_status(kind: type[GglibError]) -> None:
    """The same status as everywhere."""
    error = error_sample(kind)
    refusal = refusal_of(error)
    (words,) = json.loads(refusal.body).values()
    assert refusal.status == problem_for(error).status
    assert words == str(error) or isinstance(error, ModelNotFound)


def test_bug_is_told_without_its_trace() -> None:
    """It is in the log."""
    refusal = refusal_of(KeyError("secret"))
    assert refusal.status == 500
    assert b"secret" not in refusal.body
