"""How much memory a server will take, on each device: an estimate before it is started.

The formulas hold for llama.cpp. Source: llama.cpp build 11434; measured with xllamacpp
2026.10.11549, see docs/explanation/memory.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from gglib.domain.compute_buffer import compute_buffer_bytes, host_buffer_bytes
from gglib.domain.config import ServerConfig
from gglib.domain.device import CPU, Device
from gglib.domain.kv_cache import known, kv_cache
from gglib.domain.model import Capability, Model

__all__ = [
    "DEFAULT_CONTEXT_SIZE",
    "GPU_CONTEXT_BYTES",
    "PROCESS_BYTES",
    "MemoryEstimate",
    "MemoryParts",
    "context_size_of",
    "estimate_memory",
    "prompt_cache_mib",
]

#: Of a model that does not say for what context it was trained, when none is asked for.
DEFAULT_CONTEXT_SIZE = 4096

#: llama-server's own choices. Source: llama-server --help, build 11434; measured.
_DEFAULT_SLOTS = 4
_DEFAULT_BATCH = 2048
_DEFAULT_UBATCH = 512

_MIB = 2**20

#: A server's program, threads and buffers for requests. Measured: 33 to 40 MiB.
PROCESS_BYTES = 48 * _MIB
#: A token of the vocabulary in the tokenizer's tables. Measured: 220 bytes.
_TOKEN_BYTES = 256
#: The driver's own part on each GPU. An assumption: not measured.
GPU_CONTEXT_BYTES = 512 * _MIB
#: What a projector takes for one image beside its file, at the most. An assumption.
_IMAGE_BYTES = 512 * _MIB

#: What a server may keep of earlier prompts, if nobody says: this part of its context's size,
#: and no more than that. llama.cpp's own choice is 8 GiB for each server.
_PROMPT_CACHE_DIVISOR = 4
_MOST_PROMPT_CACHE_MIB = 1024

#: What the database can keep; sizes beyond it come from damaged files only.
_MAX_BYTES = 2**63 - 1
_MAX_LAYERS = 2**16


def _bytes(value: int) -> int:
    return max(0, min(int(value), _MAX_BYTES))


@attrs.frozen(kw_only=True)
class MemoryParts:
    """What takes memory on one device, in bytes; each from 0 to 2**63 - 1."""

    weights_bytes: int = attrs.field(default=0, converter=_bytes)
    kv_bytes: int = attrs.field(default=0, converter=_bytes)
    """The context: the cache of keys and values, and recurrent states."""
    compute_bytes: int = attrs.field(default=0, converter=_bytes)
    """Working memory for one physical batch."""
    other_bytes: int = attrs.field(default=0, converter=_bytes)
    """The process, the driver, adapters, a projector; or all that was stated or observed."""

    @property
    def total_bytes(self) -> int:
        """All parts together."""
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.other_bytes


def _by_device(value: Mapping[str, MemoryParts]) -> Mapping[str, MemoryParts]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class MemoryEstimate:
    """What a server will take when its context is full."""

    devices: Mapping[str, MemoryParts] = attrs.field(converter=_by_device, hash=False)
    """By the device's name; the machine's own memory, ``cpu``, is always there."""
    context_size: int
    """Tokens, of all slots together."""
    slots: int
    layers: int
    """The model's, with the output layer: as engines count what they offload."""
    gpu_layers: int
    """How many of them are on GPUs."""
    source: str = "formula"
    """``formula``; ``stated``: a person said so; ``observed``: corrected by earlier runs."""

    @property
    def needs(self) -> Mapping[str, int]:
        """Bytes by device."""
        return {name: parts.total_bytes for name, parts in self.devices.items()}

    @property
    def total_bytes(self) -> int:
        """Bytes on all devices together."""
        return sum(self.needs.values())

    @property
    def parts(self) -> MemoryParts:
        """The parts, summed over devices."""
        each = self.devices.values()
        return MemoryParts(
            weights_bytes=sum(parts.weights_bytes for parts in each),
            kv_bytes=sum(parts.kv_bytes for parts in each),
            compute_bytes=sum(parts.compute_bytes for parts in each),
            other_bytes=sum(parts.other_bytes for parts in each),
        )


def context_size_of(model: Model, config: ServerConfig) -> int:
    """Return the context in tokens: the configuration's, else the model's, else 4,096."""
    return config.context_size or known(model.facts.context_length, DEFAULT_CONTEXT_SIZE)


def offloadable_layers(model: Model) -> int:
    """Return how many layers an engine can put on GPUs: the model's, and the output layer."""
    return min(known(model.facts.layers, 1), _MAX_LAYERS) + 1


def estimate_memory(
    model: Model,
    config: ServerConfig,
    accelerators: Sequence[Device] = (),
    *,
    projector_bytes: int = 0,
    adapter_bytes: int = 0,
) -> MemoryEstimate:
    """Return what a server of ``model`` will take, started as ``config`` says.

    Of ``accelerators`` the first ``config.gpu_layers`` layers are taken, all that there are if
    it says nothing; several share them in proportion to what they have free. The sizes of the
    projector's and the LoRA adapters' files are the caller's to find, in bytes.

    ``model.defaults.memory_bytes`` overrides it: devices then share that in proportion to what
    the formula gives them.

    Weights in memory that is mapped (``config.mmap``) can be taken back by the system, and
    count in full all the same: a server without them would read them again for each token.
    What a server may keep of earlier prompts counts, too (``prompt_cache_mib``).

    The result never shrinks when the context or the file grows.
    """
    layers = offloadable_layers(model)
    offloaded = _offloaded(config, layers) if accelerators else 0
    accelerators = accelerators if offloaded else ()
    of_model = _OfModel(model, config)
    on_gpus = of_model.on_gpus(offloaded, layers)
    on_cpu = of_model.on_cpu(offloaded, layers)
    extra = adapter_bytes + projector_bytes + min(projector_bytes, _IMAGE_BYTES)
    beside = of_model.process_bytes + of_model.prompt_cache_mib * _MIB
    devices = {CPU: attrs.evolve(on_cpu, other_bytes=on_cpu.other_bytes + beside)}
    devices |= _shared(on_gpus, accelerators)
    first = accelerators[0].name if accelerators else CPU
    devices[first] = attrs.evolve(devices[first], other_bytes=devices[first].other_bytes + extra)
    estimate = MemoryEstimate(
        devices=devices,
        context_size=of_model.context_size,
        slots=of_model.slots,
        layers=layers,
        gpu_layers=offloaded,
    )
    stated = model.defaults.memory_bytes
    return estimate if stated is None else scaled_to(estimate, stated, source="stated")


def prompt_cache_mib(model: Model, config: ServerConfig) -> int:
    """Return how much of earlier prompts a server may keep in the machine's memory, in MiB.

    ``config.cache_ram_mib``; where it says nothing, or no limit, a quarter of what the context
    takes, rounded up, and at most 1,024. llama.cpp keeps the newest prompt whatever its size.
    """
    return _OfModel(model, config).prompt_cache_mib


def scaled_to(estimate: MemoryEstimate, total_bytes: int, *, source: str) -> MemoryEstimate:
    """Return ``total_bytes`` shared among the devices as ``estimate`` is, to the byte."""
    rest, left, devices = total_bytes, max(1, estimate.total_bytes), {}
    for name, needed in estimate.needs.items():
        share = rest * needed // left if left else rest
        devices[name] = MemoryParts(other_bytes=share)
        rest, left = rest - share, left - needed
    if rest:
        devices[CPU] = MemoryParts(other_bytes=devices[CPU].other_bytes + rest)
    return attrs.evolve(estimate, devices=devices, source=source)


def _offloaded(config: ServerConfig, layers: int) -> int:
    return layers if config.gpu_layers is None else min(config.gpu_layers, layers)


class _OfModel:
    """The sizes of one server's parts, and how a split divides them."""

    def __init__(self, model: Model, config: ServerConfig) -> None:
        facts = model.facts
        self.context_size = context_size_of(model, config)
        self.slots = config.parallel or _DEFAULT_SLOTS
        ubatch = min(
            config.ubatch_size or _DEFAULT_UBATCH,
            config.batch_size or _DEFAULT_BATCH,
            self.context_size,
        )
        cache = kv_cache(
            facts,
            context_size=self.context_size,
            slots=self.slots,
            # Slots that nobody has asked for share one cache.
            unified=config.parallel is None,
            ubatch_size=ubatch,
            cache_type_k=config.cache_type_k,
            cache_type_v=config.cache_type_v,
            full_sliding_cache="--swa-full" in config.extra_args,
        )
        encodes = _only_encodes(model)
        self._kv = 0 if encodes else cache.total_bytes
        outputs = (0 if encodes else ubatch) if config.embeddings else self.slots
        flash = config.flash_attention != "off"
        self._compute = compute_buffer_bytes(
            facts,
            ubatch_size=ubatch,
            cells=cache.seen_cells,
            all_cells=cache.cells,
            outputs=outputs,
            flash_attention=flash,
            narrowed=(config.cache_type_k == "f32", config.cache_type_v == "f32"),
        )
        self._host_buffers = host_buffer_bytes(
            facts,
            ubatch_size=ubatch,
            cells=cache.seen_cells,
            flash_attention=flash,
        )
        if config.spec_draft_n_max is not None:
            # The drafting layer has a context and working memory of its own.
            self._kv += -(-self._kv // known(facts.layers, 1))
            self._compute *= 2
        self.prompt_cache_mib = _prompt_cache_mib(config.cache_ram_mib, self._kv)
        vocabulary = known(facts.vocabulary_size, 0)
        # What comes out of a batch: logits, and of one for embeddings both, for every token.
        logits = outputs * vocabulary
        vectors = ubatch * known(facts.embedding_size, 0) if config.embeddings else 0
        self.process_bytes = PROCESS_BYTES + vocabulary * _TOKEN_BYTES + 4 * (logits + vectors)
        size = model.size_bytes
        self._input = min(max(0, facts.input_bytes or 0), size)
        self._output = min(max(0, facts.output_bytes or 0), size - self._input)
        self._repeating = size - self._input - self._output
        self._tied = facts.output_bytes == 0

    def _repeating_share(self, total: int, offloaded: int, layers: int) -> int:
        """Return the part of what repeats that is offloaded: the output layer goes first."""
        return total * max(0, offloaded - 1) // (layers - 1)

    def on_gpus(self, offloaded: int, layers: int) -> MemoryParts:
        if not offloaded:
            return MemoryParts()
        # An output layer that uses the token embeddings has a copy of them.
        output = self._input if self._tied else self._output
        return MemoryParts(
            weights_bytes=self._repeating_share(self._repeating, offloaded, layers) + output,
            kv_bytes=self._repeating_share(self._kv, offloaded, layers),
            compute_bytes=self._compute,
        )

    def on_cpu(self, offloaded: int, layers: int) -> MemoryParts:
        weights = self._repeating - self._repeating_share(self._repeating, offloaded, layers)
        output = 0 if offloaded else self._output
        return MemoryParts(
            weights_bytes=self._input + weights + output,
            kv_bytes=self._kv - self._repeating_share(self._kv, offloaded, layers),
            compute_bytes=self._host_buffers if offloaded == layers else self._compute,
        )


def _prompt_cache_mib(said: int | None, kv_bytes: int) -> int:
    if said is not None and said >= 0:
        return said
    return min(-(-kv_bytes // (_PROMPT_CACHE_DIVISOR * _MIB)), _MOST_PROMPT_CACHE_MIB)


def _only_encodes(model: Model) -> bool:
    """Return whether it has neither a cache nor an output layer: BERT's family."""
    text = model.facts.capabilities & {Capability.CHAT, Capability.COMPLETION}
    return not text and "bert" in (model.facts.architecture or "")


def _shared(parts: MemoryParts, accelerators: Sequence[Device]) -> dict[str, MemoryParts]:
    """Divide what is on GPUs by what they have free; each has its own working memory.

    Shares are rounded up, so that none shrinks when the whole grows.
    """
    free = [max(1, device.free_bytes) for device in accelerators]
    whole = sum(free)
    return {
        device.name: MemoryParts(
            weights_bytes=-(-parts.weights_bytes * weight // whole),
            kv_bytes=-(-parts.kv_bytes * weight // whole),
            compute_bytes=parts.compute_bytes,
            other_bytes=GPU_CONTEXT_BYTES,
        )
        for device, weight in zip(accelerators, free, strict=True)
    }
