"""Whether a start failed because there was not enough memory."""

from __future__ import annotations

import re
import signal

from gglib.errors import GglibError, StartFailed

__all__ = ["ran_out_of_memory"]

#: How engines say it. Source: strerror(ENOMEM), C++, CUDA, Vulkan and ggml of llama.cpp 11434.
_SAID = re.compile(
    r"out of (device |host )?memory|cannot allocate memory|bad_alloc|OutOf(Device|Host)?Memory"
    r"|(failed|unable) to allocate|not enough memory",
    re.I,
)


def ran_out_of_memory(error: GglibError) -> bool:
    """Whether ``error`` tells of a start that died for want of memory.

    A start that was killed by SIGKILL counts: that is how the kernel ends who takes too much.
    """
    if not isinstance(error, StartFailed):
        return False
    killed = error.exit_status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    return killed or any(_SAID.search(line) for line in error.log_tail)
