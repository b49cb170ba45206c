"""Projectors: found beside models, and given to those that they belong to."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.gguf_files import U32, GgufPieces, pair, tensor, text_pair, write_model

from gglib.domain.model import Capability, ModelFacts
from gglib.domain.projector import Projector, choose_projector, with_projector, without_projector
from gglib_adapters.sources.projector_files import is_projector, projectors_in

CHATS = frozenset({Capability.CHAT, Capability.COMPLETION})
BOOL = 7


def write_projector(
    path: Path,
    *,
    width: int | None = 64,
    title: str | None = None,
    vision: bool = True,
    audio: bool = False,
    layers: tuple[int, ...] = (),
) -> Path:
    """Write a projector as converters do."""
    pieces = GgufPieces()
    pieces.pairs = [
        text_pair("general.architecture", "clip"),
        text_pair("general.type", "mmproj"),
        pair("clip.has_vision_encoder", BOOL, bytes([vision])),
        pair("clip.has_audio_encoder", BOOL, bytes([audio])),
    ]
    if title is not None:
        pieces.pairs.append(text_pair("general.name", title))
    if width is not None:
        pieces.pairs.append(pair("clip.vision.projection_dim", U32, struct.pack("<I", width)))
    pieces.tensors = [
        tensor("v.patch_embd.weight", [1]),
        *(tensor(f"mm.{number}.weight", [1, size]) for number, size in enumerate(layers)),
    ]
    pieces.data = bytes(4 * max(1, *layers, 1))
    path.write_bytes(pieces.to_bytes())
    return path


def test_projectors_are_found_by_what_they_say(tmp_path: Path) -> None:
    """Not by their names; a model that is called mmproj is none."""
    sees = write_projector(tmp_path / "eyes.gguf", title="A Model")
    hears = write_projector(tmp_path / "z.gguf", vision=False, audio=True)
    impostor = write_model(tmp_path / "mmproj-F16.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and no more")
    assert [is_projector(path) for path in (sees, hears, impostor)] == [True, True, False]
    eyes, ears = projectors_in(tmp_path)
    assert (eyes.path, eyes.title, eyes.widths, eyes.quantization) == (
        sees,
        "A Model",
        frozenset({64}),
        "F32",
    )
    assert (eyes.capabilities, ears.capabilities) == ({Capability.VISION}, {Capability.AUDIO})
    assert projectors_in(tmp_path / "gone") == ()


def test_width_of_an_old_projector_is_that_of_its_last_layers(tmp_path: Path) -> None:
    """Its stated width is the image encoder's."""
    write_projector(tmp_path / "old.gguf", width=768, layers=(4096,))
    write_projector(tmp_path / "new.gguf", width=64, layers=(1152, 64))
    new, old = projectors_in(tmp_path)
    assert (new.widths, 4096 in old.widths, 768 in old.widths) == ({64}, True, False)


def chosen(model: str, *projectors: Projector, title: str | None = None) -> str | None:
    """Return the name of the file that a model gets."""
    facts = ModelFacts(embedding_size=64, capabilities=CHATS, display_name=title)
    found = choose_projector(Path("/m") / model, facts, projectors)
    return None if found is None else found.path.name


def projector(name: str, width: int = 64, title: str | None = None, **more: object) -> Projector:
    """Return a projector in the models' folder."""
    path = Path("/m") / name
    return Projector(path=path, widths=frozenset({width}), title=title, vision=True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "name", "title", "belongs"),
    [
        ("gemma-3-4b-it-Q4_K_M.gguf", "mmproj-F16.gguf", None, True),
        ("gemma-3-4b-it-Q4_K_M.gguf", "mmproj-gemma-3-4b-it-BF16.gguf", None, True),
        ("gemma-3-4b-it-Q4_K_M.gguf", "gemma-3-4b-it.mmproj-f16.gguf", None, True),
        ("gemma-3-4b-it-Q4_K_M.gguf", "mmproj-F16.gguf", "Gemma 3 4b It", True),
        ("gemma-3-4b-it-Q4_K_M.gguf", "mmproj-F16.gguf", "Gemma 3 1b It", False),
        ("gemma-3-4b-it-Q4_K_M.gguf", "mmproj-gemma-3-12b-it-f16.gguf", None, False),
        ("Qwen2.5-3B-Instruct-Q8_0.gguf", "mmproj-Qwen2.5-VL-3B-Instruct.gguf", None, False),
        (
            "Qwen2.5-VL-3B-Instruct-UD-Q4_K_XL.gguf",
            "mmproj-Qwen2.5-VL-3B-Instruct.gguf",
            None,
            True,
        ),
        ("big-00001-of-00003.gguf", "mmproj-big.gguf", None, True),
    ],
)
def test_projector_belongs_where_its_name_fits(
    model: str, name: str, title: str | None, belongs: bool
) -> None:
    """Every word of it is in the model's; encodings are no part of a name."""
    assert chosen(model, projector(name, title=title)) == (name if belongs else None)


def test_projector_of_another_width_or_folder_does_not_belong() -> None:
    """A server would not start with it."""
    assert chosen("m.gguf", projector("mmproj.gguf", width=65)) is None
    elsewhere = Projector(path=Path("/other/mmproj.gguf"), vision=True)
    assert chosen("m.gguf", elsewhere) is None


def test_nearest_name_wins_then_the_better_encoding() -> None:
    """Whatever the order in which they were found."""
    many = [
        projector("mmproj-F32.gguf", quantization="F32"),
        projector("mmproj-BF16.gguf", quantization="BF16"),
        projector("mmproj-F16.gguf", quantization="F16"),
        projector("mmproj-odd.gguf", quantization="Q4_K_M"),
    ]
    assert chosen("m.gguf", *many) == chosen("m.gguf", *reversed(many)) == "mmproj-F16.gguf"
    named = projector("mmproj-m.gguf", quantization=None)
    assert chosen("m.gguf", *many, named) == "mmproj-m.gguf"


def test_embedding_model_gets_no_projector() -> None:
    """It says nothing about pictures."""
    facts = ModelFacts(embedding_size=64, capabilities=frozenset({Capability.EMBEDDING}))
    assert choose_projector(Path("/m/e.gguf"), facts, [projector("mmproj.gguf")]) is None


def test_projector_gives_sight_and_takes_it_along() -> None:
    """What the model can do by itself stays."""
    facts = ModelFacts(capabilities=CHATS)
    seeing = with_projector(facts, projector("mmproj.gguf"))
    assert seeing.capabilities == CHATS | {Capability.VISION}
    assert without_projector(seeing) == with_projector(facts, None) == facts
