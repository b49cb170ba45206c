"""Servers on another machine, over the system's OpenSSH."""

from gglib_adapters.runners.ssh.runner import SshProcessRunner, open_ssh_runner
from gglib_adapters.runners.ssh.settings import SshRunnerSettings

__all__ = ["SshProcessRunner", "SshRunnerSettings", "open_ssh_runner"]
