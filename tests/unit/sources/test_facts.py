"""What gglib concludes from a header."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.gguf_files import ARRAY, STRING, U32, pair, string, text_pair, write_model

from gglib.domain.model import Capability, ModelFacts
from gglib.services.demo.tiny_gguf import tiny_gguf
from gglib_adapters.sources.bounded_reader import MalformedFile
from gglib_adapters.sources.facts import facts_of
from gglib_adapters.sources.gguf_header import read_gguf_header

I32 = 5
CHAT, COMPLETION, TOOLS = Capability.CHAT, Capability.COMPLETION, Capability.TOOLS


def number(key: str, value: int) -> bytes:
    """Return an entry with a 32-bit number."""
    return pair(key, U32, struct.pack("<I", value))


def facts(path: Path, architecture: str = "llama", **more: object) -> ModelFacts:
    """Write a model, read it, and return its facts."""
    return facts_of(
        read_gguf_header(write_model(path / "m.gguf", architecture=architecture, **more))  # type: ignore[arg-type]
    )


def test_tiny_model_has_the_facts_it_was_made_with(tmp_path: Path) -> None:
    """Every fact of a real model file comes out."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf(name="Tiny"))
    found = facts_of(read_gguf_header(path))
    assert found.chat_template is not None
    assert "add_generation_prompt" in found.chat_template
    assert found == ModelFacts(
        architecture="llama",
        quantization="F32",
        parameters=115_392,
        context_length=2048,
        layers=2,
        heads=4,
        kv_heads=4,
        embedding_size=64,
        vocabulary_size=259,
        chat_template=found.chat_template,
        display_name="Tiny",
        capabilities=frozenset({CHAT, COMPLETION}),
        feed_forward_size=128,
        input_bytes=259 * 64 * 4,
        output_bytes=259 * 64 * 4,
    )


@pytest.mark.parametrize(
    ("architecture", "pairs", "names", "expected"),
    [
        ("llama", [], [], {COMPLETION}),
        ("llama", [text_pair("tokenizer.chat_template", "{{ x }}")], [], {COMPLETION, CHAT}),
        ("llama", [text_pair("tokenizer.chat_template", "")], [], {COMPLETION}),
        (
            "qwen3",
            [text_pair("tokenizer.chat_template", "{% if tools %}<think>")],
            [],
            {COMPLETION, CHAT, TOOLS, Capability.REASONING},
        ),
        (
            "llama",
            [text_pair("tokenizer.chat_template", "{{ toolset }} rethinking")],
            [],
            {COMPLETION, CHAT},
        ),
        ("bert", [], [], {Capability.EMBEDDING}),
        (
            "qwen3",
            [
                number("qwen3.pooling_type", 3),
                text_pair("tokenizer.chat_template", "{{ x }}"),
            ],
            [],
            {Capability.EMBEDDING},
        ),
        ("qwen3", [number("qwen3.pooling_type", 0)], [], {COMPLETION}),
        ("bert", [number("bert.pooling_type", 4)], [], {Capability.RERANK}),
        ("bert", [], ["cls.output.weight"], {Capability.RERANK}),
        ("deepseek2", [number("deepseek2.nextn_predict_layers", 1)], [], {COMPLETION, "mtp"}),
        ("glm4moe", [], ["blk.46.nextn.eh_proj.weight"], {COMPLETION, "mtp"}),
    ],
)
def test_header_tells_what_a_model_can_do(
    tmp_path: Path,
    architecture: str,
    pairs: list[bytes],
    names: list[str],
    expected: set[str],
) -> None:
    """Template, architecture, pooling and tensors decide, and nothing else."""
    found = facts(tmp_path, architecture, pairs=pairs, names=["token_embd.weight", *names])
    assert found.capabilities == expected


def test_number_that_differs_by_layer_is_the_largest(tmp_path: Path) -> None:
    """Hybrid models have KV heads in some layers only."""
    heads = struct.pack("<IQ4i", I32, 4, 0, 8, 2, 0)
    found = facts(tmp_path, pairs=[pair("llama.attention.head_count_kv", ARRAY, heads)])
    assert found.kv_heads == 8


def test_kv_heads_unsaid_are_as_many_as_heads(tmp_path: Path) -> None:
    """Without grouped attention the file says heads only."""
    found = facts(tmp_path, pairs=[number("llama.attention.head_count", 6)])
    assert (found.heads, found.kv_heads) == (6, 6)


@pytest.mark.parametrize(
    "entry",
    [
        text_pair("llama.context_length", "4096"),
        pair("llama.context_length", 6, struct.pack("<f", 4096.0)),
        pair("llama.context_length", 7, b"\1"),
        pair("llama.context_length", 10, struct.pack("<Q", 2**64 - 1)),
        pair("llama.context_length", ARRAY, struct.pack("<IQ", U32, 0)),
        number("llama.context_length", 0),
    ],
)
def test_number_of_a_wrong_kind_is_not_said(tmp_path: Path, entry: bytes) -> None:
    """A context length that is no count is as if it were absent."""
    assert facts(tmp_path, pairs=[entry]).context_length is None


def test_vocabulary_is_counted_by_its_tokens(tmp_path: Path) -> None:
    """The token list is right where the stated size differs."""
    tokens = struct.pack("<IQ", STRING, 2) + string("a") + string("b")
    entries = [pair("tokenizer.ggml.tokens", ARRAY, tokens), number("llama.vocab_size", 9)]
    assert facts(tmp_path, pairs=entries).vocabulary_size == 2
    assert facts(tmp_path, pairs=entries[1:]).vocabulary_size == 9


def test_title_carries_no_control_characters(tmp_path: Path) -> None:
    """A file cannot write to the terminal of who lists it."""
    entry = text_pair("general.name", "\x1b[31mRed\n title\x07" + "x" * 500)
    title = facts(tmp_path, pairs=[entry]).display_name
    assert title is not None
    assert title.startswith("[31mRed titlexx")
    assert (len(title), title.isprintable()) == (200, True)


@pytest.mark.parametrize(
    ("architecture", "pairs", "reason"),
    [
        ("clip", [], "a multimodal projector"),
        ("clip", [text_pair("general.type", "mmproj")], "a multimodal projector"),
        ("llama", [text_pair("general.type", "adapter")], "a LoRA adapter"),
        ("llama", [text_pair("general.type", "imatrix")], "an importance matrix"),
        ("controlvector", [], "a control vector"),
        ("no/such\nthing", [], "its architecture is 'no/such"),
        ("", [], "its architecture is ''"),
    ],
)
def test_file_that_is_no_model_is_refused(
    tmp_path: Path, architecture: str, pairs: list[bytes], reason: str
) -> None:
    """Projectors, adapters and the like are named for what they are."""
    with pytest.raises(MalformedFile, match=reason):
        facts(tmp_path, architecture, pairs=pairs)


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    """A vocabulary alone cannot be served."""
    with pytest.raises(MalformedFile, match="no tensors"):
        facts(tmp_path, names=[])


def test_file_without_architecture_is_refused(tmp_path: Path) -> None:
    """A GGUF file that does not say what it is is no model."""
    path = tmp_path / "m.gguf"
    content = write_model(path).read_bytes()
    path.write_bytes(content.replace(b"general.architecture", b"general.xrchitecture"))
    with pytest.raises(MalformedFile, match="does not name its architecture"):
        facts_of(read_gguf_header(path))
