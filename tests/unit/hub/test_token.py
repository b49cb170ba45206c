"""The user's token for the hub is found where the hub's own tools keep it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import get_token

from gglib_adapters.hub.token import DEFAULT_ENDPOINT, endpoint_of, find_token


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose every place for a token is empty."""
    return {"HF_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_token_of_the_environment_comes_first(places: dict[str, str], tmp_path: Path) -> None:
    """Then the file that is named, the one in HF_HOME, and the one in the cache."""
    for folder in ("home", "cache/huggingface"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "token").write_text(f"hf_{folder[:4]}\n")
    (tmp_path / "named").write_text("hf_named")
    named = {"HF_TOKEN_PATH": str(tmp_path / "named")}

    assert find_token({**places, **named, "HF_TOKEN": " hf_variable\n"}) == "hf_variable"
    assert find_token({**places, **named, "HUGGING_FACE_HUB_TOKEN": "hf_old"}) == "hf_old"
    assert find_token({**places, **named}) == "hf_named"
    assert find_token(places) == "hf_home"
    assert find_token({"XDG_CACHE_HOME": places["XDG_CACHE_HOME"]}) == "hf_cach"


@pytest.mark.parametrize("content", [b"", b" \n", b"a\nb", b"\xff\xfe", "hf_ä".encode()])
def test_what_cannot_be_a_token_is_none(places: dict[str, str], content: bytes) -> None:
    """It could not be sent."""
    home = Path(places["HF_HOME"])
    home.mkdir()
    (home / "token").write_bytes(content)
    assert find_token(places) is None
    assert find_token({**places, "HF_TOKEN": content.decode(errors="replace")}) is None


def test_hubs_own_library_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a variable, at least: files it looks up when it is imported."""
    monkeypatch.setenv("HF_TOKEN", "hf_same")
    assert find_token() == get_token() == "hf_same"


def test_endpoint_is_the_public_one_unless_another_is_said() -> None:
    """Without a slash at its end."""
    assert endpoint_of({}) == endpoint_of({"HF_ENDPOINT": " "}) == DEFAULT_ENDPOINT
    assert endpoint_of({"HF_ENDPOINT": "http://mirror/hub/"}) == "http://mirror/hub"
