"""From a model file's header to what gglib knows of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain

from gglib.domain.model import Capability, ModelFacts
from gglib_adapters.sources.bounded_reader import MalformedFile
from gglib_adapters.sources.ggml_types import quantization_label
from gglib_adapters.sources.gguf_header import (
    INPUT,
    OUTPUT,
    GgufHeader,
    GgufTensors,
    GgufValue,
    SkippedArray,
)
from gglib_adapters.sources.memory_facts import count_of, memory_facts

__all__ = ["facts_of", "title_of"]

#: Architectures that give vectors and no text. Source: gguf 0.19.0, MODEL_ARCH_NAMES.
_ENCODERS = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
#: ``{arch}.pooling_type``. Source: gguf 0.19.0, PoolingType.
_POOLING_NONE, _POOLING_RANK = 0, 4
#: ``general.type`` of files that are no models on their own. Source: gguf 0.19.0, GGUFType.
_OTHER_FILES = {
    "adapter": "a LoRA adapter, not a model; `gglib lora add` takes it",
    "imatrix": "an importance matrix, not a model",
    "mmproj": "a multimodal projector (mmproj), not a model; "
    "add its model, and this is found beside it, or set mmproj_path to this file",
}
_OTHER_ARCHITECTURES = {
    "clip": _OTHER_FILES["mmproj"],
    "controlvector": "a control vector, not a model",
}
_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLASSIFIER = re.compile(r"cls(\.output)?\.(weight|bias)")
_TOOLS = re.compile(r"\btools?\b|\btool_calls\b")
_REASONING = re.compile(
    r"</?think(ing)?>|\[/?THINK\]|<\|channel\|>|enable_thinking|thinking_budget"
)
_MAX_TITLE = 200
_MAX_INT = 2**63 - 1


def facts_of(header: GgufHeader, *shards: GgufTensors) -> ModelFacts:
    """Return what ``header`` (of the first file) and the further ``shards`` say.

    Where a number differs by layer (``heads``, ``kv_heads``) it is the largest. A model
    with pooling is for vectors: it does not chat, even with a template. ``quantization``:
    see ``quantization_label``.

    Raises:
        MalformedFile: the file is not a model on its own (a projector, a LoRA adapter …).
    """
    metadata = header.metadata
    architecture = _architecture(metadata)
    tensors = (header.tensors, *shards)
    if not any(part.names for part in tensors):
        raise MalformedFile("it has no tensors: a vocabulary, not a model")
    bytes_by_type: dict[int, int] = {}
    ends: dict[str, int] = {}
    for part in tensors:
        ends.update(part.bytes_by_name)
        for kind, size in part.bytes_by_type.items():
            bytes_by_type[kind] = bytes_by_type.get(kind, 0) + size

    def number(key: str) -> int | None:
        return count_of(metadata.get(f"{architecture}.{key}"))

    heads = number("attention.head_count")
    template = _text(metadata.get("tokenizer.chat_template"))
    return ModelFacts(
        architecture=architecture,
        quantization=quantization_label(
            bytes_by_type,
            metadata.get("general.file_type"),
            chain.from_iterable(zip(part.names, part.types, strict=True) for part in tensors),
        ),
        parameters=min(sum(part.elements for part in tensors), _MAX_INT),
        context_length=number("context_length"),
        layers=number("block_count"),
        heads=heads,
        kv_heads=number("attention.head_count_kv") or heads,
        embedding_size=number("embedding_length"),
        expert_count=number("expert_count"),
        expert_used_count=number("expert_used_count"),
        vocabulary_size=_count(metadata.get("tokenizer.ggml.tokens")) or number("vocab_size"),
        chat_template=template,
        display_name=title_of(metadata),
        capabilities=_capabilities(
            architecture, metadata, [name for part in tensors for name in part.names], template
        ),
        input_bytes=ends.get(INPUT),
        output_bytes=ends.get(OUTPUT, 0) if INPUT in ends else None,
        **memory_facts(architecture, metadata),
    )


def _architecture(metadata: Mapping[str, GgufValue]) -> str:
    kind, architecture = metadata.get("general.type"), metadata.get("general.architecture")
    for found, others in ((kind, _OTHER_FILES), (architecture, _OTHER_ARCHITECTURES)):
        if isinstance(found, str) and found in others:
            raise MalformedFile(others[found])
    if architecture is None:
        raise MalformedFile("it does not name its architecture (general.architecture)")
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        raise MalformedFile(f"damaged: its architecture is {str(architecture)[:80]!r}")
    return architecture


def _capabilities(
    architecture: str, metadata: Mapping[str, GgufValue], names: list[str], template: str | None
) -> frozenset[Capability]:
    pooling = metadata.get(f"{architecture}.pooling_type", _POOLING_NONE)
    if pooling == _POOLING_RANK or any(_CLASSIFIER.fullmatch(name) for name in names):
        return frozenset({Capability.RERANK})
    if architecture in _ENCODERS or pooling != _POOLING_NONE:
        return frozenset({Capability.EMBEDDING})
    found = {Capability.COMPLETION}
    if template is not None:
        found.add(Capability.CHAT)
        if _TOOLS.search(template):
            found.add(Capability.TOOLS)
        if _REASONING.search(template):
            found.add(Capability.REASONING)
    if count_of(metadata.get(f"{architecture}.nextn_predict_layers")) or any(
        ".nextn." in name for name in names
    ):
        found.add(Capability.MTP)
    return frozenset(found)


def _count(value: GgufValue | None) -> int | None:
    if isinstance(value, tuple):
        return len(value)
    return value.count if isinstance(value, SkippedArray) else None


def _text(value: GgufValue | None) -> str | None:
    return value if isinstance(value, str) and value else None


def title_of(metadata: Mapping[str, GgufValue]) -> str | None:
    """Return what a file's author calls it, fit for a terminal."""
    value = metadata.get("general.name")
    if not isinstance(value, str):
        return None
    # It ends up on terminals: no control characters.
    return "".join(filter(str.isprintable, value)).strip()[:_MAX_TITLE] or None
