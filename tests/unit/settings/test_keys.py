"""``[gateway.keys.NAME]``: what is accepted, and that no message repeats a key."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from gglib.domain.access import Scope
from gglib.errors import ConfigurationError
from gglib.settings import GatewaySettings, load_settings
from gglib.settings.keys import digest_of

SECRET = "sk-hush"


def load(folder: Path, text: str, **environ: str) -> GatewaySettings:
    """Load ``text`` as the file of ``folder``."""
    file = folder / "gglib.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load_settings(flags={"data_dir": folder}, environ=environ).settings.gateway


def test_key_and_its_hash_are_the_same_key(tmp_path: Path) -> None:
    """Inference is what a key opens of which nothing is said."""
    sha256 = hashlib.sha256(SECRET.encode()).hexdigest()
    plain = load(tmp_path, f'[gateway.keys.a]\nkey = "{SECRET}"\n').keys["a"]
    hashed = load(tmp_path, f'[gateway.keys.a]\nsha256 = "{sha256}"\n').keys["a"]
    assert plain == hashed
    assert (plain.digest, plain.grant.scopes) == (digest_of(SECRET), {Scope.INFERENCE})
    assert plain.grant.models is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('keys = "sk-hush"', "[gateway.keys.NAME]"),
        ('keys = {a = "sk-hush"}', "a table, [gateway.keys.a]"),
        ("[gateway.keys.a]", "either a key or its sha256"),
        (f'[gateway.keys.a]\nkey = "sk-hush"\nsha256 = "{"0" * 64}"', "either a key or its sha256"),
        ('[gateway.keys.a]\nkey = "sk-hush sk-hush"', "keys.a.key"),
        ("[gateway.keys.a]\nkey = 1", "keys.a.key"),
        ('[gateway.keys.a]\nsha256 = "sk-hush"', "64 hexadecimal digits"),
        ('[gateway.keys.a]\nkey = "sk-hush"\nscope = "admin"', "scope"),
        ('[gateway.keys.a]\nkey = "sk-hush"\nscopes = ["root"]', "inference, read, admin"),
        ('[gateway.keys.a]\nkey = "sk-hush"\nscopes = []', "inference, read, admin"),
        ('[gateway.keys.a]\nkey = "sk-hush"\nscopes = "admin"', "inference, read, admin"),
        ('[gateway.keys.a]\nkey = "sk-hush"\nmodels = []', "a list of names"),
        ('[gateway.keys.a]\nkey = "sk-hush"\nmodels = [1]', "a list of names"),
        (
            '[gateway.keys.a]\nkey = "sk-hush"\nscopes = ["admin"]\nmodels = ["m"]',
            "not limited to models",
        ),
        ('[gateway.keys."a b"]\nkey = "sk-hush"', "names of letters"),
        (
            '[gateway.keys.a]\nkey = "sk-hush"\n[gateway.keys.b]\nkey = "sk-hush"',
            "not that of a",
        ),
    ],
)
def test_wrong_key_is_named_and_never_repeated(tmp_path: Path, body: str, said: str) -> None:
    """With the file and its line."""
    text = body if body.startswith("[") else f"[gateway]\n{body}"
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text + "\n")
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.source == str(tmp_path / "gglib.toml")
    assert caught.value.line is not None


def test_keys_are_not_for_variables(tmp_path: Path) -> None:
    """Whatever the variable holds, it is not repeated."""
    with pytest.raises(ConfigurationError, match="tables in the settings file") as caught:
        load(tmp_path, "", GGLIB_GATEWAY_KEYS=SECRET)
    assert SECRET not in str(caught.value)


def test_file_with_keys_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Who can write it could let himself in."""
    file = tmp_path / "gglib.toml"
    file.write_text(f'[gateway.keys.a]\nkey = "{SECRET}"\n')
    file.chmod(0o666)
    with pytest.raises(ConfigurationError, match="who may come in"):
        load_settings(flags={"data_dir": tmp_path}, environ={})


def test_settings_do_not_show_a_key() -> None:
    """Neither do they keep it."""
    tables: Any = {"a": {"key": SECRET}}
    settings = GatewaySettings(keys=tables)
    assert SECRET not in repr(settings) + repr(settings.keys)
