"""PID 1 of a real sandbox: what it serves, what it refuses, what it does not believe."""

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandboxd.spawner import wire
from sandboxd.spawner.init import Init
from tests import no_cgroups
from tests.skips import need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.spawner_rig import CEILINGS, EXECUTE, LAUNCH, TEMPLATE, Daemon, Sandbox


def _start(sandbox: Sandbox, *argv: str, plan: wire.Execute = EXECUTE) -> int:
    """A program that runs on; its pid, told once it was executed."""
    sandbox.begin(replace(plan, argv=argv))
    return sandbox.init.expect(wire.Started)[0].pid


def test_start_is_told_before_the_end(sandbox: Sandbox) -> None:
    sandbox.begin(EXECUTE)
    kinds = []
    while "Exited" not in kinds:
        received = wire.receive(sandbox.init.sock)
        assert received is not None
        kinds.append(type(received[0]).__name__)
    assert kinds == ["Started", "Exited"]


def test_signal_reaches_the_group_and_its_number_comes_back(sandbox: Sandbox) -> None:
    _start(sandbox, "/bin/sh", "-c", "sleep 100 & wait")
    sandbox.init.send(wire.Signal(EXECUTE.execution_id, signal.SIGUSR1))
    exited, _ = sandbox.init.expect(wire.Exited)
    assert os.WTERMSIG(exited.wait_status) == signal.SIGUSR1


def test_signal_for_an_unknown_execution_does_nothing(sandbox: Sandbox) -> None:
    sandbox.init.send(wire.Signal("f" * 32, signal.SIGKILL))
    assert sandbox.run("/bin/echo", "alive").output == "alive\n"


def test_main_process_that_ends_takes_everybody_along(sandbox: Sandbox) -> None:
    """The pipe is read to its end: it would never come while a process of the program's lived."""
    ended = sandbox.run("/bin/sh", "-c", "trap '' TERM HUP INT; setsid sh -c 'sleep 1000' & echo started")
    assert ended.output == "started\n"
    listing = sandbox.run("/bin/sh", "-c", "cat /proc/[0-9]*/comm").output.split()
    assert "sleep" not in listing


def test_stop_kills_everything_but_init(sandbox: Sandbox) -> None:
    _start(sandbox, "/bin/sh", "-c", "while :; do setsid sleep 100 & sleep 0.01; done")
    assert sandbox.ask(wire.Stop(7)).errno == 0
    exited, _ = sandbox.init.expect(wire.Exited)
    assert os.WTERMSIG(exited.wait_status) == signal.SIGKILL
    assert sandbox.run("/bin/echo", "again").output == "again\n"


def _children(sandbox: Sandbox) -> set[str]:
    """Of its init, by their names on the host."""
    names = set()
    for pid in sandbox.children():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # gone since it was listed
            names.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


def test_keeper_of_the_memory_is_gone_once_a_program_runs_on(sandbox: Sandbox) -> None:
    _start(sandbox, "/bin/sleep", "1000")
    assert any(_children(sandbox) == {"sleep"} for _ in range(100_000))


def test_keepers_of_short_programs_do_not_add_up(sandbox: Sandbox) -> None:
    """Each is over before anybody looks."""
    for _ in range(8):
        assert sandbox.run("/bin/true").status == 0
    assert any(len(sandbox.children()) <= 1 for _ in range(20_000))


def test_keeper_that_was_killed_while_nothing_ran_does_no_harm(sandbox: Sandbox) -> None:
    """A program can do that where all have one uid, and another process might get its pid."""
    _, keeper = sorted(sandbox.children())
    os.kill(keeper, signal.SIGKILL)
    while keeper in sandbox.children():
        pass
    assert sandbox.run("/bin/sleep", "0.2").status == 0


@pytest.mark.parametrize(
    ("listed", "alone"),
    [("", True), ("5 77 ", True), ("5 6 ", False), ("5 " * 2043 + "5 ", True), ("5 " * 2044 + "6 ", False),
     ("1000 " * 819, False)],
    ids=["none", "keepers", "a program", "many keepers", "many keepers and a program", "a list that may go on"],
)  # fmt: skip
def test_alone_is_only_who_has_read_the_whole_list(listed: str, alone: bool, tmp_path: Path) -> None:
    """The kernel ends a list where the next number had no room, which is before the buffer is full."""
    (tmp_path / "children").write_text(listed)
    init = Init.__new__(Init)
    init._keepers = {5, 77, 1000}
    with (tmp_path / "children").open() as file:
        init._children = file.fileno()
        assert init._is_alone() is alone


def test_alone_is_nobody_whose_list_cannot_be_read(tmp_path: Path) -> None:
    init = Init.__new__(Init)
    init._keepers = set()
    with (tmp_path / "children").open("w") as unreadable:
        init._children = unreadable.fileno()
        assert not init._is_alone()


@pytest.mark.parametrize("left", ["sleep 1000 &", "setsid sleep 1000 &", "(setsid sleep 1000 &) & wait"])
def test_nothing_that_a_program_leaves_behind_outlives_it(left: str, sandbox: Sandbox) -> None:
    sandbox.run("/bin/sh", "-c", f"{left} exit 0")
    assert "sleep" not in _children(sandbox)


def test_orphans_are_reaped(sandbox: Sandbox) -> None:
    """More of them than the sandbox may have processes."""
    script = "for i in $(seq 200); do (true &) ; done; echo done"
    assert sandbox.run("/bin/sh", "-c", script).output == "done\n"


def test_two_executions_run_side_by_side_and_one_end_spares_the_other(sandbox: Sandbox) -> None:
    other = replace(EXECUTE, execution_id="f" * 32, slot=1)
    _start(sandbox, "/bin/sleep", "100", plan=other)
    assert sandbox.run("/bin/echo", "first").output == "first\n"
    sandbox.init.send(wire.Signal(other.execution_id, signal.SIGTERM))
    exited, _ = sandbox.init.expect(wire.Exited)
    assert exited.execution_id == other.execution_id
    assert os.WTERMSIG(exited.wait_status) == signal.SIGTERM


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"open_files": CEILINGS.open_files + 1}, "open_files"),
        ({"file_size_bytes": CEILINGS.file_size_bytes + 1}, "file_size_bytes"),
        ({"cpu_seconds": CEILINGS.cpu_seconds + 0.1}, "cpu_seconds"),
        ({"open_files": 0}, "open_files"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"pids": -1}, "pids"),
        ({"slot": -1}, "slot"),
        ({"slot": -1000}, "slot"),
        ({"slot": 15}, "slot"),
        ({"argv": ()}, "argv"),
    ],
)
def test_execution_beyond_the_template_is_refused_by_init_too(
    change: dict[str, int], named: str, sandbox: Sandbox
) -> None:
    sandbox.begin(replace(EXECUTE, **change))  # type: ignore[arg-type]
    failed, _ = sandbox.init.expect(wire.ExecFailed)
    assert failed.step == "plan"
    assert named in failed.detail
    assert sandbox.run("/bin/echo", "alive").output == "alive\n"


def _named_pipe(directory: Path) -> int:
    os.mkfifo(directory / "fifo")
    return os.open(directory / "fifo", os.O_RDWR)


def _open_socket() -> int:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours.detach()


def _regular_file(directory: Path) -> int:
    return os.open(directory / "file", os.O_RDWR | os.O_CREAT)


@pytest.mark.parametrize(
    "opened",
    [
        lambda directory: os.open("/", os.O_PATH),
        lambda directory: os.open(directory, os.O_RDONLY),
        _regular_file,
        _named_pipe,
        lambda directory: _open_socket(),
        lambda directory: os.memfd_create("x"),
        lambda directory: os.open("/dev/null", os.O_RDWR),
        lambda directory: os.open("/proc/self/ns/mnt", os.O_RDONLY),
    ],
    ids=["root", "directory", "file", "named pipe", "socket", "memory", "device", "namespace"],
)
@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_stream_that_is_no_pipe_reaches_no_program(
    stream: str, opened: Callable[[Path], int], sandbox: Sandbox, tmp_path: Path
) -> None:
    """From a daemon that was taken over it would lead out of the sandbox. With pipes a program runs."""
    foreign = opened(tmp_path)
    read, write = os.pipe()
    streams = {"stdin": read, "stdout": write, "stderr": write, stream: foreign}
    sandbox.init.send(replace(EXECUTE, argv=("/bin/touch", "ran")), *streams.values())
    for fd in (foreign, read, write):
        os.close(fd)
    failed, _ = sandbox.init.expect(wire.ExecFailed)
    assert failed.step == "plan"
    assert failed.detail.startswith(f"{stream} has mode")
    assert sandbox.run("/bin/ls").output == ""


@pytest.fixture(scope="module")
def uncontrolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox of a node without cgroups."""
    need_root()
    with spawner_rig.start(tmp_path_factory.mktemp("uncontrolled"), within=no_cgroups.PREFIX) as rig:
        rig.compile(TEMPLATE)
        daemon = rig.daemon()
        made = daemon.ready_sandbox()
        yield made
        daemon.destroy(made)


BOUND = replace(EXECUTE, memory_bytes=LAUNCH.memory_bytes, pids=LAUNCH.pids)


def test_execution_on_a_node_without_cgroups_has_the_limits_of_its_launch(uncontrolled: Sandbox) -> None:
    greedy = f"print(1); bytearray({LAUNCH.memory_bytes})"
    ended = uncontrolled.run("python3", "-c", greedy, plan=BOUND)
    assert (ended.status, "MemoryError" in ended.output) == (1, True)
    assert uncontrolled.run("/bin/bash", "-c", "ulimit -u", plan=BOUND).output == f"{LAUNCH.pids}\n"


@pytest.mark.parametrize("name", ["memory_bytes", "pids"])
def test_execution_that_leaves_out_what_no_cgroup_holds_reaches_no_program(name: str, uncontrolled: Sandbox) -> None:
    """From a daemon that was taken over. What the launch said counts, not the ceiling of the profile."""
    for wrong in (0, -1, getattr(LAUNCH, name) + 1, getattr(CEILINGS, name)):
        change: dict[str, Any] = {name: wrong}
        uncontrolled.begin(replace(BOUND, argv=("/bin/touch", "ran"), **change))
        failed, _ = uncontrolled.init.expect(wire.ExecFailed)
        assert (failed.step, failed.detail.split()[:2]) == ("plan", [name, str(wrong)])
    assert uncontrolled.run("/bin/ls", plan=BOUND).output == ""


@pytest.mark.parametrize(
    "packet",
    [
        b"garbage",
        b'{"type":"Stop"}',
        wire.encode(LAUNCH),
        wire.encode(EXECUTE),  # without its descriptors
        wire.encode(wire.Put(1, "x", 0o644, 0)),
        wire.encode(wire.Collect(1, ("*",), 1, 1, -1)),
        wire.encode(wire.Signal(EXECUTE.execution_id, 99)),
        '{"type":"Stop","request_id":1}'.encode("utf-32"),
    ],
    ids=lambda packet: repr(packet[:24]),
)
def test_wrong_message_ends_the_sandbox_and_nothing_else(packet: bytes, spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    sandbox.init.sock.send(packet)
    ended, _ = spawner.peer.expect(wire.SandboxEnded)
    assert (ended.sandbox_id, ended.wait_status) == (sandbox.sandbox_id, 1)
    sandbox.close()
    spawner.destroy(spawner.ready_sandbox())


def test_put_without_its_slot_ends_the_sandbox(spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    content = os.memfd_create("content")
    socket.send_fds(sandbox.init.sock, [wire.encode(wire.Put(1, "x", 0o644, 15))], [content])
    os.close(content)
    assert spawner.peer.expect(wire.SandboxEnded)[0].wait_status == 1
    sandbox.close()


def _put(sandbox: Sandbox, path: str, content: bytes, mode: int = 0o644) -> wire.Answer:
    fd = os.memfd_create("content")
    os.write(fd, content)
    try:
        return sandbox.ask(wire.Put(5, path, mode, 0), fd)
    finally:
        os.close(fd)


def test_put_file_belongs_to_the_program(sandbox: Sandbox) -> None:
    assert _put(sandbox, "a/b/c", b"text", 0o7777).errno == 0
    listing = sandbox.run("/bin/sh", "-c", "cat a/b/c; stat -c ' %U %a' a a/b a/b/c").output
    assert listing.split() == ["text", "sandbox", "755", "sandbox", "755", "sandbox", "755"]


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../x", "", ".", "a//b", "a\0b", "\ud800", "/".join("d" * 65)])
def test_put_outside_the_workspace_is_refused(path: str, sandbox: Sandbox) -> None:
    assert _put(sandbox, path, b"x").errno != 0
    assert sandbox.run("/usr/bin/find", "/workspace", "-mindepth", "1").output == ""


def test_put_over_the_room_is_refused_with_the_reason(sandbox: Sandbox) -> None:
    answer = _put(sandbox, "big", bytes(17 << 20))
    assert os.strerror(answer.errno) == "No space left on device"


def test_put_does_not_go_through_a_link(sandbox: Sandbox) -> None:
    sandbox.run("/bin/ln", "-s", "/tmp", "out")
    assert _put(sandbox, "out/x", b"x").errno != 0
    assert sandbox.run("/bin/ls", "/tmp").output == ""


def test_collected_files_come_as_descriptors_with_what_was_skipped(sandbox: Sandbox) -> None:
    sandbox.run("/bin/sh", "-c", "echo one > a.txt; ln -s /etc/passwd l.txt; mkfifo f.txt; echo no > b.bin")
    answer = sandbox.ask(wire.Collect(6, ("*.txt",), 10, 1000, 0))
    opened, (fd,) = sandbox.init.expect(wire.FileOpened)
    assert (opened.path, opened.size, os.read(fd, 10)) == ("a.txt", 4, b"one\n")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    os.close(fd)
    assert answer.skipped == (("f.txt", "not a regular file"), ("l.txt", "a symbolic link"))


def test_answer_larger_than_a_packet_arrives(sandbox: Sandbox) -> None:
    script = """
import os
for i in range(100):
    os.symlink("x", "n" * 200 + str(i))
    os.makedirs("/".join(["d" * 200] * 5), exist_ok=True)
    os.symlink("x", "/".join(["d" * 200] * 5) + "/" + "n" * 200 + str(i))
"""
    assert sandbox.run("python3", "-c", script).status == 0
    answer = sandbox.ask(wire.Collect(6, ("**",), 10, 1000, 0))
    assert len(answer.skipped) == 100
    assert len(wire.encode(answer)) > wire.MAX_PACKET


def test_init_that_is_never_idle_looks_at_the_limits_all_the_same(sandbox: Sandbox) -> None:
    """Here it is the daemon that keeps it busy; a program can do it with orphans."""
    script = """
import os, time
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    time.sleep(1)
"""
    sandbox.begin(replace(EXECUTE, argv=("/usr/bin/python3", "-c", script)))
    sandbox.init.expect(wire.Started)
    while not select.select([sandbox.init.sock], [], [], 0)[0]:
        sandbox.init.send(wire.Signal("f" * 32, signal.SIGUSR1))
    assert sandbox.init.expect(wire.Exited)[0].limits_reached == ("open_files",)


def test_program_is_told_as_lost_only_with_its_sandbox(spawner: Daemon) -> None:
    """The main process killed by a child of its own is an ordinary end."""
    sandbox = spawner.ready_sandbox()
    ended = sandbox.run("/bin/sh", "-c", "kill -9 $$")
    assert ended.status == -signal.SIGKILL
    sandbox.run("/bin/sh", "-c", "kill -9 1; kill -9 -1")
    assert sandbox.run("/bin/echo", "alive").output == "alive\n"
    spawner.destroy(sandbox)


def test_reached_limits_are_told(sandbox: Sandbox) -> None:
    exited = sandbox.run("/bin/sh", "-c", "head -c 20M /dev/zero > f; head -c 5M /dev/zero > /tmp/f").exited
    assert exited.limits_reached == ("file_size", "tmp_bytes")


def _halted(sandbox: Sandbox) -> None:
    sandbox.init.send(wire.Halt(5))
    answer, _ = sandbox.init.expect(wire.Answer)
    assert (answer.request_id, answer.errno) == (5, 0), answer.message


def _states(sandbox: Sandbox) -> set[str]:
    """Of init's children that are there still: those who keep memory end meanwhile."""
    found = set()
    for pid in sandbox.children():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    return found


def test_halted_programs_stand_still_until_they_are_resumed(sandbox: Sandbox) -> None:
    _start(sandbox, "/bin/sh", "-c", "while :; do :; done & while :; do :; done")
    _halted(sandbox)
    deadline = time.monotonic() + 20
    while not _states(sandbox) <= {"T", "Z"}:  # what init itself ends has yet to be given a CPU to end on
        assert time.monotonic() < deadline, _states(sandbox)
        time.sleep(0.01)
    for _ in range(4):  # looks: what init itself ends is no evasion
        time.sleep(0.06)
        assert "T" in _states(sandbox) <= {"T", "Z"}
    _halted(sandbox)
    sandbox.init.send(wire.Resume(6))
    assert sandbox.init.expect(wire.Answer)[0] == wire.Answer(6, 0, "", ())
    assert "R" in _states(sandbox) or "S" in _states(sandbox)
    assert sandbox.ask(wire.Stop(7)).errno == 0
    sandbox.init.expect(wire.Exited)


def test_halted_programs_can_be_killed(sandbox: Sandbox) -> None:
    _start(sandbox, "/bin/sleep", "1000")
    _halted(sandbox)
    assert sandbox.ask(wire.Stop(7)).errno == 0
    exited, _ = sandbox.init.expect(wire.Exited)
    assert os.WTERMSIG(exited.wait_status) == signal.SIGKILL


def test_halted_program_that_goes_on_by_itself_is_ended_with_all_others(sandbox: Sandbox) -> None:
    """By a timer of its own that sends SIGCONT: no process has to run for that."""
    timer = (
        "import ctypes, signal, struct, time; c = ctypes.CDLL(None); "
        "e = ctypes.create_string_buffer(struct.pack('=QiiQQQQQQ', 0, signal.SIGCONT, 0, 0, 0, 0, 0, 0, 0), 128); "
        "t = ctypes.c_void_p(); assert c.timer_create(1, e, ctypes.byref(t)) == 0; "
        "p = struct.pack('=qqqq', 0, 20000000, 0, 20000000); assert c.timer_settime(t, 0, p, None) == 0\n"
        "print('armed', flush=True)\n"
        "while True: time.sleep(0.01)"
    )
    nothing, closed = os.pipe()
    read, write = os.pipe()
    sandbox.init.send(replace(EXECUTE, argv=("/usr/bin/python3", "-c", timer)), nothing, write, write)
    assert os.read(read, 16) == b"armed\n"
    _halted(sandbox)
    for fd in (nothing, closed, read, write):
        os.close(fd)
    exited, _ = sandbox.init.expect(wire.Exited)
    assert os.WTERMSIG(exited.wait_status) == signal.SIGKILL


@pytest.mark.parametrize(("late", "halted", "postponed"), [(0.0, False, False), (5.0, False, True), (0.0, True, True)])
def test_time_that_it_was_frozen_or_that_programs_were_halted_counts_for_no_question(
    late: float, halted: bool, postponed: bool
) -> None:
    class Asked:
        seconds = 0.0

        def postpone(self, seconds: float) -> None:
            self.seconds += seconds

        def tick(self) -> None:
            pass

    class StandingStill:
        def evaded(self) -> bool:
            return False

    init = Init.__new__(Init)
    asked = Asked()
    init._keepers, init._executions = set(), {}
    init._mediation = asked  # type: ignore[assignment]
    init._halted = StandingStill() if halted else None  # type: ignore[assignment]
    init._look_at = time.monotonic() - late
    init._look()
    assert (asked.seconds >= max(late, 0.01)) == postponed
