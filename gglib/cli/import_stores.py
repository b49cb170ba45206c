"""``gglib model import ollama``, ``lm-studio`` and ``huggingface``: models of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from gglib.cli.options import COMMON, Common, compose_for
from gglib.cli.progress import progress
from gglib.cli.scan_steps import on_step, tell_steps
from gglib.services.catalog_steps import ScanStep

__all__ = ["huggingface", "lm_studio", "ollama"]


def ollama(
    folder: Path | None = None,
    /,
    *,
    prune: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Add Ollama's models by their names there, with their parameters. No file is copied.

    Parameters
    ----------
    folder
        Where Ollama keeps them; else $OLLAMA_MODELS, ~/.ollama/models or
        /usr/share/ollama/.ollama/models.
    prune
        Remove models of Ollama's whose files are gone.
    """
    _take("ollama", folder, prune=prune, common=common)


def lm_studio(
    folder: Path | None = None,
    /,
    *,
    prune: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Add LM Studio's models. No file is copied.

    Parameters
    ----------
    folder
        Where LM Studio keeps them; else ~/.lmstudio/models or ~/.cache/lm-studio/models.
    prune
        Remove models of LM Studio's whose files are gone.
    """
    _take("lm-studio", folder, prune=prune, common=common)


def huggingface(
    folder: Path | None = None,
    /,
    *,
    prune: Annotated[bool, Parameter(negative=())] = False,
    common: Common = COMMON,
) -> None:
    """Add the GGUF models in the Hugging Face cache. No file is copied.

    Parameters
    ----------
    folder
        Where the cache is; else $HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub.
    prune
        Remove models of the cache's whose files are gone.
    """
    _take("huggingface", folder, prune=prune, common=common)


def _take(store: str, folder: Path | None, *, prune: bool, common: Common) -> None:
    async def work() -> Sequence[ScanStep]:
        async with compose_for(common) as parts:
            models = await parts.models()
            with progress("importing", shown=not common.json) as bar:
                return await models.import_models(
                    store, folder, prune=prune, on_step=on_step(bar, common, importing=True)
                )

    tell_steps(anyio.run(work), common, "import with --prune")
