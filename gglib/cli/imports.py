"""``gglib model import``: what other tools know, known here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import App, Parameter

from gglib.cli.options import COMMON, Common, flags_of
from gglib.cli.output import print_json, printable, say, tell
from gglib.errors import ConfigurationError

__all__ = ["app"]

app = App(
    name="import",
    help="Take over what another tool is told, or has. Model files stay where they are.",
    help_format="plaintext",
)


for _name, _tool in {
    "ollama": "Ollama",
    "lm-studio": "LM Studio",
    "huggingface": "the Hugging Face cache",
}.items():
    _place = f"gglib.cli.import_stores:{_name.replace('-', '_')}"
    app.command(_place, name=_name, help=f"Add the models of {_tool}, where they lie.")


@app.command(name="llama-swap")
def llama_swap(
    file: Path,
    /,
    *,
    output: Path | None = None,
    show: Annotated[bool, Parameter(name="--print", negative=())] = False,
    replace: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Say a configuration of llama-swap's in ours: models, macros, filters, groups, matrix.

    What cannot be said is listed with its line, and as comments in the file.

    Parameters
    ----------
    file
        llama-swap's configuration, YAML.
    output
        Where to write the settings file; else where gglib looks for one.
    show
        Print it instead.
    replace
        Write over a settings file that is there.
    """
    from gglib.settings.llama_swap import YamlFile, translate
    from gglib.settings.writing import as_toml, write_settings

    source = file.absolute()
    found = translate(YamlFile.read(source), os.environ)
    places = [f"{source.name}:{each.line or 1}: {each.key}: {each.why}" for each in found.left_out]
    text = as_toml(found.settings, [f"From llama-swap's {source.name}.", *places])
    path: Path | None = None
    if not show:
        path = output or _default_path(common)
        if not write_settings(path.absolute(), text, replace=replace):
            raise ConfigurationError(
                "there is a settings file already; --output FILE writes another, --print none, "
                "--replace this one",
                str(path),
            )
    models = found.settings.get("models", {})
    if common.json:
        told = {
            "path": None if path is None else str(path),
            "models": sorted(models),
            "left_out": [attrs.asdict(each) for each in found.left_out],
        }
        print_json(told if path is not None else {**told, "settings": found.settings})
        return
    for place in places:
        tell(printable(place))
    if path is None:
        say(text.rstrip("\n"))
        return
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    missing = sum(each.is_model for each in found.left_out)
    say(f"wrote {path}: {count}" + (f"; {missing} left out" if missing else ""))


def _default_path(common: Common) -> Path:
    from gglib.settings import find_data_dir, find_settings_file

    flags = flags_of(common)
    data_dir, _ = find_data_dir(flags, os.environ)
    return find_settings_file(flags, os.environ, data_dir)[0]
