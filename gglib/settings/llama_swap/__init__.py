"""llama-swap's configuration, read and said in ours."""

from __future__ import annotations

from gglib.settings.llama_swap.translation import LeftOut, Translated, translate
from gglib.settings.llama_swap.yaml_file import YamlFile

__all__ = ["LeftOut", "Translated", "YamlFile", "translate"]
