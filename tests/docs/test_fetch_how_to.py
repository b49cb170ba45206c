"""The page on fetching models, typed line by line before a hub on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path

from support.hub import local_hub
from support.pages import ROOT, blocks_of
from support.pulled import files_below, home_for, model_bytes

PAGE = ROOT / "docs" / "how-to" / "fetch-models.md"


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    """In the order in which a reader types them."""
    stem = "qwen2.5-0.5b-instruct"
    typed = [
        shlex.split(line.removeprefix("$ gglib "))
        for block in blocks_of(PAGE)
        for line in block.code.splitlines()
        if line.startswith("$ gglib ")
    ]
    said = []
    with local_hub() as hub:
        hub.add(
            "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
            {
                f"{stem}-{name}.gguf": model_bytes(seed=seed)
                for seed, name in enumerate(("fp16", "q2_k", "q4_k_m", "q8_0"))
            },
        )
        home = home_for(tmp_path, hub)
        for words in typed:
            done = home.run(*words)
            assert done.returncode == 0, (words, done.stderr)
            said.append(done.stdout)

    search, quants, pulled, chosen, again, outdated, downloads, removed = said
    assert "Qwen/Qwen2.5-0.5B-Instruct-GGUF" in search
    assert "Q4_K_M        4.2 KiB  1      yes   pulled unless you name another\n" in quants
    assert pulled.startswith(f"pulled {stem}-q4_k_m (Q4_K_M, 4.2 KiB)")
    assert chosen.startswith("pulled qwen (Q8_0, 4.2 KiB)")
    assert again.startswith(f"{stem}-q4_k_m is there already")
    assert outdated == "every model that was pulled is the newest\n"
    assert downloads.count("done") == 2
    assert removed.startswith("removed qwen")
    assert files_below(home) == [f"{stem}-q4_k_m.gguf"]
