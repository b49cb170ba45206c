"""What is read of a request's body, and what is changed in it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglib.errors import InvalidRequest
from gglib.gateway.relay.body import read_requested_model, with_model

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
numbers = st.sampled_from(["1", "-0", "1.0e0", "1E400", "0.10", "12345678901234567890123456789"])
#: Values as they may be written, spacing and number forms included.
values = st.recursive(
    numbers
    | st.sampled_from(["true", "false", "null", '"\\/"', '"\\u00e9"', '"\\ud83d\\ude00"'])
    | texts.map(json.dumps)
    | texts.map(lambda text: json.dumps(text, ensure_ascii=False)),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[ " + " ,".join(items) + "\t]")
        | st.lists(st.tuples(texts.map(json.dumps), inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key} :{value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)
names = texts.filter(bool)
spaces = st.sampled_from(["", " ", "\n\t"])
keys = texts.filter(lambda key: key not in {"model", "stream"})
#: The name of the field, as JSON may spell it.
spellings = st.sampled_from(
    ['"model"', '"\\u006dodel"', '"mod\\u0065l"', '"\\u006D\\u006f\\u0064el"']
)


def document(pairs: list[tuple[str, str]], space: str) -> bytes:
    """Return a JSON object of written keys and values."""
    return (
        f"{space}{{{space}{f'{space},'.join(f'{k}:{space}{v}' for k, v in pairs)}{space}}}".encode()
    )


def fields(body: bytes) -> dict[str, bytes]:
    """Return the fields of an object, each as it is written."""
    raws = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return {key: bytes(raw) for key, raw in raws.items()}


@given(st.dictionaries(keys, values, max_size=4), names, names, spaces, st.randoms())
def test_another_name_leaves_every_other_value_as_it_was_written(
    others: dict[str, str], name: str, new: str, space: str, random: Any
) -> None:
    """Byte for byte: number forms, spacing and escapes are the client's."""
    pairs = [(json.dumps(key), value) for key, value in others.items()]
    pairs.append(('"model"', json.dumps(name)))
    random.shuffle(pairs)
    body = document(pairs, space)
    changed = with_model(body, new)
    before, after = fields(body), fields(changed)
    assert json.loads(after.pop("model")) == new
    del before["model"]
    assert list(after.items()) == list(before.items())
    assert read_requested_model(changed).model == new


@given(
    st.lists(st.tuples(spellings, names), max_size=3),
    st.dictionaries(keys, values, max_size=3),
    spaces,
    st.randoms(),
)
def test_body_must_name_exactly_one_model(
    models: list[tuple[str, str]], others: dict[str, str], space: str, random: Any
) -> None:
    """However the field is spelled: the engine might read the other one."""
    pairs = [(spelling, json.dumps(name)) for spelling, name in models]
    pairs += [(json.dumps(key), value) for key, value in others.items()]
    random.shuffle(pairs)
    body = document(pairs, space)
    if len(models) == 1:
        assert read_requested_model(body).model == models[0][1]
        return
    with pytest.raises(InvalidRequest) as caught:
        read_requested_model(body)
    assert caught.value.param == "model"
    assert ("twice" in str(caught.value)) == (len(models) > 1)


@given(values, names)
def test_model_inside_another_value_is_not_the_requests(value: str, name: str) -> None:
    """A tool may have a parameter of that name."""
    inner = '{"model": ' + value + "}"
    body = document([('"tools"', f"[{inner}, {inner}]"), ('"model"', json.dumps(name))], " ")
    assert read_requested_model(body).model == name


@pytest.mark.parametrize(
    ("stream", "expected"), [("true", True), ("false", False), ("null", None), (None, None)]
)
def test_stream_is_read(stream: str | None, expected: bool | None) -> None:
    """It decides how a failure is told."""
    more = "" if stream is None else f', "stream": {stream}'
    assert read_requested_model(f'{{"model": "m"{more}}}'.encode()).stream is expected


@pytest.mark.parametrize(
    ("body", "param", "part"),
    [
        (b"", "model", "no body"),
        (b"  \n", "model", "no body"),
        (b"{}", "model", "no 'model'"),
        (b'{"model": ""}', "model", "empty"),
        (b'{"model": null}', "model", "'model' is null; expected a string"),
        (b'{"model": ["m"]}', "model", "'model' is [\"m\"]"),
        (b'{"model": "m", "stream": "yes"}', "stream", "'stream' is \"yes\"; expected true"),
        (b'{"model": "m", "stream": 1}', "stream", "expected true or false"),
        (b"[]", None, "not a JSON object"),
        (b'"model"', None, "not a JSON object"),
        (b'{"model": "m"', None, "not a JSON object"),
        (b'{"model": "m"} {}', None, "not a JSON object"),
        (b"model=m", None, "not a JSON object"),
        (b'\xff\xfe{"model": "m"}', None, "not a JSON object"),
        (b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "deeply"),
    ],
)
def test_wrong_body_is_told_with_its_parameter(body: bytes, param: str | None, part: str) -> None:
    """What is wrong, and what would be right."""
    with pytest.raises(InvalidRequest) as caught:
        read_requested_model(body)
    assert caught.value.param == param
    assert part in str(caught.value)


@given(st.binary(max_size=60) | texts.map(str.encode))
def test_any_bytes_are_a_model_or_an_invalid_request(body: bytes) -> None:
    """Nothing else comes out of a stranger's bytes."""
    with contextlib.suppress(InvalidRequest):
        assert read_requested_model(body).model


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "\xff"}',
        b'{"model": 5, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"mod\xffel": 1, "model": "m", "model": "n"}',
    ],
)
def test_hostile_body_is_an_invalid_request(body: bytes) -> None:
    """Neither bytes that are no text nor depth is a bug of ours."""
    with pytest.raises(InvalidRequest):
        read_requested_model(body)
