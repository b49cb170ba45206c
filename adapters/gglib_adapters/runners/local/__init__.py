"""Servers on this machine, each in its own session, known again by who they are."""

from gglib_adapters.runners.local.runner import LocalProcessRunner, open_local_runner
from gglib_adapters.runners.local.settings import LocalRunnerSettings

__all__ = ["LocalProcessRunner", "LocalRunnerSettings", "open_local_runner"]
