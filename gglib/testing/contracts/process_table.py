"""What every process table promises."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import TypeAlias

import anyio.to_thread
import attrs
import pytest

from gglib.ports.context import AdapterContext
from gglib.ports.process_table import ProcessTable
from gglib.testing.contexts import make_context
from gglib.testing.contracts.backends import Contract

__all__ = ["Child", "OpenProcessTable", "ProcessTableContract"]

#: A process table adapter's factory.
OpenProcessTable: TypeAlias = Callable[[AdapterContext], AbstractAsyncContextManager[ProcessTable]]

_HOUR_S = 3600.0

#: Says its port, if it is to listen, and lives until its input ends.
_CHILD = """
import socket, sys
if sys.argv[1] == "listen":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
else:
    print(0, flush=True)
sys.stdin.read()
"""


@attrs.frozen
class Child:
    """A real process that the test has started."""

    process: subprocess.Popen[str]
    started_at: float
    port: int

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def die(self) -> None:
        """Kill it, and leave its status where it is: it is a zombie then."""
        self.process.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


#: Says "ready" when it, and a child of its own if it is to have one, have their memory: pages
#: of their own, or those of a file, which both map.
_EATER = """
import mmap, os, sys
megabytes, path, children = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "child"
read, write = os.pipe()
child = os.fork() if children else None
size = megabytes << 20
if path:
    with open(path, "rb") as file:
        held = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    total = sum(held[offset] for offset in range(0, size, 4096))
else:
    held = b"x" * size
if child == 0:
    os.write(write, b"1")
else:
    if children:
        os.read(read, 1)
    print("ready", flush=True)
sys.stdin.read()
"""

_MIB = 2**20


class ProcessTableContract(Contract):
    """What every process table keeps. It starts real processes, and needs POSIX.

    Subclass it in a test module under a name that begins with ``Test``, and override the
    fixture ``open_process_table``::

        class TestMyTable(ProcessTableContract):
            @pytest.fixture
            def open_process_table(self):
                return open_my_table
    """

    knows_memory: bool = True
    """Whether ``memory_bytes`` and ``own_memory_bytes`` can tell; else they say ``None``."""

    longest_look_s: float = 0.01
    """How long ``is_alive`` may take at the most, in the mean of many."""

    @pytest.fixture
    def open_process_table(self) -> OpenProcessTable:
        """Return the adapter's factory."""
        raise NotImplementedError("override the fixture open_process_table: return your factory")

    @pytest.fixture
    def context(self, tmp_path: Path) -> AdapterContext:
        """Return what the factory is given; override it for an adapter with settings."""
        return make_context(tmp_path)

    @pytest.fixture
    async def table(
        self, open_process_table: OpenProcessTable, context: AdapterContext
    ) -> AsyncIterator[ProcessTable]:
        """Open the table."""
        async with open_process_table(context) as table:
            yield table

    def started_at(self, process: subprocess.Popen[str], about: float) -> float:
        """Return when ``process`` started, as the table's users would have recorded it.

        ``about`` is the clock's time at its start. Override it where the table tells
        processes apart more finely than that.
        """
        del process
        return about

    @pytest.fixture
    def start_child(self) -> Iterator[Callable[..., Child]]:
        """Return a function that starts a child; all are gone when the test ends."""
        children: list[subprocess.Popen[str]] = []

        def start(*, listen: bool = False) -> Child:
            about = time.time()
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", _CHILD, "listen" if listen else "wait"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            children.append(process)
            assert process.stdout is not None
            port = int(process.stdout.readline())
            return Child(process, self.started_at(process, about), port)

        yield start
        for process in children:
            process.kill()
            process.communicate()

    # Who this process is

    async def test_opened_table_is_of_the_port(self, table: ProcessTable) -> None:
        """The factory's context manager gives a ``ProcessTable``."""
        assert isinstance(table, ProcessTable), "bootstrap takes subclasses of ProcessTable only"

    async def test_identity_is_that_of_this_process(self, table: ProcessTable) -> None:
        """A node, this pid, and a start that is past, and not long so."""
        node, pid, started_at = table.identity()

        assert node, "identity() must name the node"
        assert pid == os.getpid(), "identity() must have this process's pid"
        assert started_at <= time.time() + 2, "a process starts before it looks"
        assert started_at > time.time() - 366 * 24 * _HOUR_S, "times must be Unix seconds"

    async def test_identity_is_the_same_every_time(
        self, table: ProcessTable, open_process_table: OpenProcessTable, context: AdapterContext
    ) -> None:
        """Through another opening too: records are compared with it."""
        async with open_process_table(context) as other:
            seen = {table.identity(), table.identity(), other.identity()}

        assert len(seen) == 1, "identity() must not change while the process lives"

    async def test_this_process_is_alive(self, table: ProcessTable) -> None:
        """What ``identity`` says, ``is_alive`` takes."""
        assert table.is_alive(*table.identity()), "is_alive() must know what identity() said"

    # Who lives

    async def test_child_is_alive_until_it_dies(
        self, table: ProcessTable, start_child: Callable[..., Child]
    ) -> None:
        """Alive while it runs; not as a zombie, and not when its parent has seen it go."""
        child = start_child()
        node = table.identity().node

        assert table.is_alive(node, child.pid, child.started_at), "a running process is alive"
        child.die()
        assert not table.is_alive(node, child.pid, child.started_at), "a zombie is not alive"
        child.process.wait()
        assert not table.is_alive(node, child.pid, child.started_at), "what is gone is not alive"

    async def test_stopped_process_is_alive(
        self, table: ProcessTable, start_child: Callable[..., Child]
    ) -> None:
        """One that is held (SIGSTOP) can go on at any time."""
        child = start_child()
        os.kill(child.pid, signal.SIGSTOP)

        alive = table.is_alive(table.identity().node, child.pid, child.started_at)

        assert alive, "a stopped process is alive"

    @pytest.mark.parametrize("shift_s", [-_HOUR_S, _HOUR_S])
    async def test_other_process_with_the_same_pid_is_not_meant(
        self, table: ProcessTable, start_child: Callable[..., Child], shift_s: float
    ) -> None:
        """Pids are reused: one that started at another time is another process."""
        child = start_child()
        node, pid, started_at = table.identity()

        assert not table.is_alive(node, child.pid, child.started_at + shift_s), (
            "a process that started at another time is another process"
        )
        assert not table.is_alive(node, pid, started_at + shift_s), (
            "a process that started at another time is another process, for this one too"
        )

    @pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1, 2**31, 2**63])
    async def test_pid_that_cannot_be_is_not_alive(self, table: ProcessTable, pid: int) -> None:
        """Whatever stands in a damaged record, nothing is raised."""
        node, _, started_at = table.identity()

        assert not table.is_alive(node, pid, started_at), f"no process has the pid {pid}"

    async def test_process_of_another_node_counts_as_alive(
        self, table: ProcessTable, start_child: Callable[..., Child]
    ) -> None:
        """Nothing here can tell, not even from a pid that is free here."""
        child = start_child()
        child.die()
        child.process.wait()

        for pid in (child.pid, os.getpid(), 2**31):
            assert table.is_alive("another node", pid, child.started_at), (
                "a process of another node must count as alive"
            )

    async def test_looking_is_quick_enough_for_an_event_loop(self, table: ProcessTable) -> None:
        """``is_alive`` and ``identity`` are called from the loop."""
        began = time.monotonic()
        for _ in range(100):
            table.is_alive(*table.identity())
        took_s = time.monotonic() - began

        assert took_s / 100 <= self.longest_look_s, (
            f"is_alive() must be quick enough for an event loop: 100 looks took {took_s:.1f} s"
        )

    async def test_looking_touches_nothing(
        self, table: ProcessTable, start_child: Callable[..., Child]
    ) -> None:
        """A child that was looked at runs on, and its parent gets its status."""
        child = start_child(listen=True)
        node = table.identity().node
        table.is_alive(node, child.pid, child.started_at)
        table.is_alive(node, child.pid, child.started_at - _HOUR_S)
        await anyio.to_thread.run_sync(table.holder_of_port, child.port)

        assert child.process.poll() is None, "looking at a process must not end it"
        child.die()
        table.is_alive(node, child.pid, child.started_at)
        assert child.process.wait() == -signal.SIGKILL, (
            "looking at a dead process must leave its status to its parent"
        )

    # Who listens

    async def test_holder_of_a_port_is_named(
        self, table: ProcessTable, start_child: Callable[..., Child]
    ) -> None:
        """Name and pid, of this process and of another one; from a worker thread."""
        child = start_child(listen=True)
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            for port, pid in ((listener.getsockname()[1], os.getpid()), (child.port, child.pid)):
                holder = await anyio.to_thread.run_sync(table.holder_of_port, port)
                assert holder is not None, "a port with a listener must have a holder"
                assert re.fullmatch(rf".+ \(pid {pid}\)", holder), (
                    f"holder_of_port() must be 'name (pid {pid})', not {holder!r}"
                )

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1"])  # noqa: S104 - for a moment
    async def test_listener_on_any_address_holds_its_port(
        self, table: ProcessTable, host: str
    ) -> None:
        """On all interfaces, or in the newer protocol."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, 0), family=family)
        except OSError:
            pytest.skip(f"nothing can listen on {host} here")
        with closing(listener):
            port = listener.getsockname()[1]
            holder = await anyio.to_thread.run_sync(table.holder_of_port, port)

        assert f"(pid {os.getpid()})" in (holder or ""), f"a listener on {host} holds its port"

    async def test_port_is_free_when_its_listener_has_gone(
        self, table: ProcessTable, start_child: Callable[..., Child]
    ) -> None:
        """Closed here, or gone with its process."""
        child = start_child(listen=True)
        child.die()
        child.process.wait()
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]

        for free in (port, child.port):
            holder = await anyio.to_thread.run_sync(table.holder_of_port, free)
            assert holder is None, "a port without a listener must have no holder"

    async def test_port_is_held_by_listeners_only(self, table: ProcessTable) -> None:
        """Not by a socket that is bound, a client's end of a connection, or another protocol."""
        with (
            closing(socket.socket()) as bound,
            closing(socket.socket(type=socket.SOCK_DGRAM)) as datagrams,
            closing(socket.create_server(("127.0.0.1", 0))) as listener,
            closing(socket.create_connection(listener.getsockname())) as client,
        ):
            for one in (bound, datagrams):
                one.bind(("127.0.0.1", 0))
            for one in (bound, datagrams, client):
                port = one.getsockname()[1]
                holder = await anyio.to_thread.run_sync(table.holder_of_port, port)
                assert holder is None, f"nobody listens on TCP {port}: {one}"

    # How much memory it has

    @pytest.fixture
    def start_eater(self) -> Iterator[Callable[..., int]]:
        """Return a function that starts a process with memory, and returns its pid."""
        started: list[subprocess.Popen[str]] = []

        def start(megabytes: int, *, file: Path | None = None, child: bool = False) -> int:
            arguments = [str(megabytes), str(file or ""), "child" if child else ""]
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", _EATER, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process.pid

        yield start
        for process in started:
            process.communicate()

    async def memory_of(self, table: ProcessTable, pid: int) -> int:
        """Return a process's memory, as its users ask for it."""
        if not self.knows_memory:
            pytest.skip("knows_memory = False: this table cannot tell")
        found = await anyio.to_thread.run_sync(table.memory_bytes, pid)
        assert isinstance(found, int), "memory_bytes() of a running process must be a number"
        return found

    async def test_memory_of_a_process_is_in_bytes(
        self, table: ProcessTable, start_eater: Callable[..., int]
    ) -> None:
        """What it has taken, and not much beside."""
        found = await self.memory_of(table, start_eater(64))

        assert 64 * _MIB <= found <= 128 * _MIB, f"64 MiB and an interpreter, not {found} bytes"

    async def test_memory_of_descendants_counts(
        self, table: ProcessTable, start_eater: Callable[..., int]
    ) -> None:
        """An engine may be behind a script."""
        found = await self.memory_of(table, start_eater(64, child=True))

        assert 128 * _MIB <= found <= 192 * _MIB, (
            f"64 MiB in a process and 64 MiB in its child, not {found} bytes"
        )

    async def test_memory_that_a_file_backs_is_not_its_own(
        self, table: ProcessTable, start_eater: Callable[..., int], tmp_path: Path
    ) -> None:
        """The system can have a file's pages at any time; what was written it cannot."""
        file = tmp_path / "mapped"
        file.write_bytes(bytes(64 * _MIB))
        mapping, writing = start_eater(64, file=file), start_eater(64, child=True)
        await self.memory_of(table, mapping)

        of_mapping = await anyio.to_thread.run_sync(table.own_memory_bytes, mapping)
        of_writing = await anyio.to_thread.run_sync(table.own_memory_bytes, writing)

        assert isinstance(of_mapping, int), "own_memory_bytes() of a process must be a number"
        assert of_mapping < 64 * _MIB, f"64 MiB of a file are not its own, but {of_mapping} bytes"
        assert isinstance(of_writing, int), "own_memory_bytes() of a process must be a number"
        assert 128 * _MIB <= of_writing <= 192 * _MIB, (
            f"64 MiB in a process and 64 MiB in its child, not {of_writing} bytes"
        )

    async def test_file_that_two_processes_have_mapped_counts_once(
        self, table: ProcessTable, start_eater: Callable[..., int], tmp_path: Path
    ) -> None:
        """Their pages are the same memory."""
        file = tmp_path / "mapped"
        file.write_bytes(bytes(64 * _MIB))
        found = await self.memory_of(table, start_eater(64, file=file, child=True))

        assert 64 * _MIB <= found <= 120 * _MIB, (
            f"64 MiB of a file that two processes have mapped, not {found} bytes"
        )

    async def test_file_that_strangers_have_mapped_counts_in_full(
        self, table: ProcessTable, start_eater: Callable[..., int], tmp_path: Path
    ) -> None:
        """It must fit, whoever else has it."""
        file = tmp_path / "mapped"
        file.write_bytes(bytes(64 * _MIB))
        pids = [start_eater(64, file=file) for _ in range(2)]

        for pid in pids:
            assert await self.memory_of(table, pid) >= 64 * _MIB, (
                "pages that another process has mapped too must count in full"
            )

    @pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1, 2**31, 2**63])
    async def test_process_that_is_not_there_has_no_memory(
        self, table: ProcessTable, pid: int
    ) -> None:
        """Whatever the number."""
        found = await anyio.to_thread.run_sync(table.memory_bytes, pid)
        own = await anyio.to_thread.run_sync(table.own_memory_bytes, pid)

        assert found is None, f"there is no process {pid}"
        assert own is None, f"there is no process {pid}"

    async def test_process_that_has_died_has_no_memory(
        self, table: ProcessTable, start_child: Callable[..., Child]
    ) -> None:
        """Not as a zombie either."""
        child = start_child()
        child.die()

        assert await anyio.to_thread.run_sync(table.memory_bytes, child.pid) is None, (
            "a zombie has no memory"
        )
        assert await anyio.to_thread.run_sync(table.own_memory_bytes, child.pid) is None, (
            "a zombie has no memory"
        )
