"""Which files of a repository are one model, and which model is taken."""

from __future__ import annotations

import random

import pytest

from gglib.domain.hub import HubFile, parse_reference
from gglib.domain.quantizations import (
    best_quantization,
    find_quantization,
    projector_among,
    quantizations_of,
)
from gglib.errors import InvalidRequest, InvalidValue, QuantizationNotFound


def files(*paths: str) -> list[HubFile]:
    """Return files of those paths; each is larger than the one before."""
    return [HubFile(path=path, size_bytes=number + 1) for number, path in enumerate(paths)]


def names(*paths: str) -> list[str]:
    """Return the names of the quantizations among those files."""
    return [each.name for each in quantizations_of(files(*paths))]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("qwen2.5-7b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Llama-3.2-1B-Instruct-IQ3_XXS.gguf", "IQ3_XXS"),
        ("gemma-3-4b-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("model.Q5_0.gguf", "Q5_0"),
        ("phi-4-BF16.gguf", "BF16"),
        ("ggml-model-fp16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Qwen3-30B-A3B-TQ1_0.gguf", "TQ1_0"),
        ("Q6_K/model.gguf", "Q6_K"),
        ("q8-models/plain.gguf", "Q8"),
        ("plain.gguf", "plain"),
    ],
)
def test_name_is_read_from_the_file_then_its_folder(path: str, name: str) -> None:
    """In capitals; where nothing tells it, the file's stem."""
    assert names(path) == [name]


def test_shards_are_one_model_in_order() -> None:
    """However the hub lists them."""
    shards = [f"big-Q8_0-{number:05d}-of-00012.gguf" for number in range(1, 13)]
    mixed = random.Random(1).sample(shards, 12)
    (found,) = quantizations_of(files(*mixed))
    assert [file.path for file in found.files] == shards
    assert (found.stem, found.size_bytes) == ("big-Q8_0", sum(range(1, 13)))


@pytest.mark.parametrize("missing", range(3))
def test_model_that_lacks_a_shard_is_none(missing: int) -> None:
    """Nobody could load it."""
    shards = [f"big-Q8_0-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    del shards[missing]
    assert names(*shards, "small-Q4_0.gguf") == ["Q4_0"]


def test_what_lies_beside_models_is_none() -> None:
    """Projectors, importance matrices, vocabularies, and other files."""
    beside = ("mmproj-F16.gguf", "m.imatrix.gguf", "ggml-vocab-qwen.gguf", "README.md", "Q4_0.txt")
    assert names(*beside, "m-Q4_0.gguf") == ["Q4_0"]


def test_models_with_one_label_are_told_apart() -> None:
    """By their stems: the label would mean either."""
    assert names("base-Q4_0.gguf", "chat-Q4_0.gguf", "chat-Q8_0.gguf") == [
        "base-Q4_0",
        "chat-Q4_0",
        "Q8_0",
    ]


def test_models_with_one_file_name_are_told_apart() -> None:
    """By their folders; and a name that could be either is neither."""
    paths = ("7B/model-q4_0.gguf", "13B/model-q4_0.gguf")
    assert sorted(names(*paths)) == ["13B--model-q4_0", "7B--model-q4_0"]
    found = quantizations_of([HubFile(path=path, size_bytes=1) for path in paths])
    for wanted in ("13B/model-q4_0.gguf", "13b--model-q4_0"):
        assert find_quantization(found, wanted, "o/n").files[0].path == paths[1]
    with pytest.raises(QuantizationNotFound, match="could be"):
        find_quantization(found, "model-q4_0", "o/n")


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q2_K"), "Q4_K_M"),
        (("Q8_0", "IQ4_XS", "Q4_0"), "IQ4_XS"),
        (("UD-Q4_K_XL", "Q4_0"), "UD-Q4_K_XL"),
        (("F16", "Q8_0", "Q3_K_M"), "Q8_0"),
        (("F32", "F16", "Q3_K_L"), "F16"),
        (("Q2_K", "Q3_K_S", "IQ1_M"), "Q3_K_S"),
        (("plain", "Q2_K"), "Q2_K"),
        (("plain",), "plain"),
    ],
)
def test_best_is_four_bits_then_the_least_that_is_lost(there: tuple[str, ...], taken: str) -> None:
    """Whatever the order in which they are listed."""
    found = quantizations_of(files(*(f"m-{name}.gguf" for name in there)))
    best = best_quantization(found, lambda _each: True)
    assert best is not None
    assert best.stem == f"m-{taken}"


def test_best_is_the_first_that_fits() -> None:
    """None, if none does."""
    found = quantizations_of(files("m-Q2_K.gguf", "m-Q3_K_M.gguf", "m-Q4_K_M.gguf", "m-F16.gguf"))
    best = best_quantization(found, lambda each: each.size_bytes < 3)
    assert best is not None
    assert best.name == "Q3_K_M"
    assert best_quantization(found, lambda _each: False) is None


def test_quantization_is_found_by_any_of_its_names() -> None:
    """Its label in any case, its stem, a file's name or path."""
    found = quantizations_of(files("Q4/m-Q4_K_M-00001-of-00001.gguf", "m-Q8_0.gguf"))
    for wanted in (
        *("q4_k_m", "m-Q4_K_M", "m-q4_k_m-00001-of-00001.gguf"),
        "Q4/m-Q4_K_M-00001-of-00001.gguf",
    ):
        assert find_quantization(found, wanted, "a/b").name == "Q4_K_M"
    with pytest.raises(QuantizationNotFound, match=r"'Q4_K_L'; it has Q4_K_M"):
        find_quantization(found, "Q4_K_L", "a/b")
    with pytest.raises(QuantizationNotFound, match="no whole GGUF model"):
        find_quantization((), "Q4_K_M", "a/b")


def test_projector_is_of_the_model_and_loses_the_least() -> None:
    """In its folder or above; of several models', the one with the words of its name."""
    there = files(
        *("gemma-4b-Q4_0.gguf", "mmproj-gemma-4b-BF16.gguf", "mmproj-gemma-4b-F16.gguf"),
        *("mmproj-qwen-F16.gguf", "other/mmproj-gemma-4b-F16.gguf"),
    )
    (model,) = quantizations_of(there)
    found = projector_among(there, model)
    assert found is not None
    assert found.path == "mmproj-gemma-4b-F16.gguf"
    assert projector_among(files("m-Q4_0.gguf"), model) is None


@pytest.mark.parametrize(
    ("text", "repository", "quantization"),
    [
        ("acme/tiny", "acme/tiny", None),
        ("acme/tiny:Q4_K_M", "acme/tiny", "Q4_K_M"),
        ("hf.co/acme/tiny-1.5B_x:q8_0", "acme/tiny-1.5B_x", "q8_0"),
        ("hf:acme/tiny", "acme/tiny", None),
        ("https://huggingface.co/acme/tiny/tree/main", "acme/tiny", None),
    ],
)
def test_reference_is_understood(text: str, repository: str, quantization: str | None) -> None:
    """As people write and paste it."""
    found = parse_reference(text)
    assert (found.repository, found.quantization) == (repository, quantization)


@pytest.mark.parametrize(
    "text",
    ["", "tiny", "a/b/c", "../..", "a/..", "a/b..c", "/b", "a/", "a b/c", "a/b\0", "é/b", "-a/b"],
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    """Nothing of it reaches a path or an address."""
    with pytest.raises(InvalidRequest, match="is no repository; write OWNER/NAME"):
        parse_reference(text)


@pytest.mark.parametrize("revision", ["", "..", "a/../b", "-x", "a b", "x" * 300, "ä?"])
def test_revision_that_cannot_be_one_is_refused(revision: str) -> None:
    """It would become a part of an address."""
    with pytest.raises(InvalidValue, match="a branch, a tag or a commit"):
        parse_reference("a/b", revision)
