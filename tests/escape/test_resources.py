"""Table "Resources", what tests/integration/test_limits_* has not: attempts on the bounds themselves.

R01-R04, R08, R09, R11, R12, R14, R15, R17, R19, R24 are tested there by outcome, R13, R22 and R23 with the clean-up.
"""

import subprocess

import pytest

from sandboxd.client import EndReason, InvalidRequest, SandboxdError
from tests import proc
from tests.escape.confined import Confined
from tests.escape.trace import reporting

PYTHON = "/usr/bin/python3"
RAISES = {
    "RLIMIT_NOFILE": 7,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_CORE": 4,
    "RLIMIT_CPU": 0,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
}


@pytest.mark.parametrize("name", RAISES)
def test_r20_hard_limit_cannot_be_raised(name: str, confined: Confined) -> None:
    source = f"""
import resource
hard = resource.getrlimit({RAISES[name]})[1]
if hard == resource.RLIM_INFINITY:
    print("unlimited")
else:
    try:
        resource.setrlimit({RAISES[name]}, (hard, hard + 1))
        # that of core files only pretends to have been set
        print("raised" if resource.getrlimit({RAISES[name]})[1] > hard else "refused")
    except (ValueError, PermissionError):
        print("refused")
"""
    seen = confined.run([PYTHON, "-c", source]).stdout
    assert seen in ((b"refused\n", b"unlimited\n") if name == "RLIMIT_CPU" else (b"refused\n",))


def test_r19_core_limit_cannot_be_lowered_to_where_the_host_runs_its_core_handler(confined: Confined) -> None:
    """At 1 the kernel skips a handler that core_pattern pipes to, at 0 it starts it as root of the host."""
    source = """
import ctypes, resource
libc = ctypes.CDLL(None, use_errno=True)
print(resource.getrlimit(resource.RLIMIT_CORE))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
zero = (ctypes.c_ulong * 2)(0, 0)
print(libc.syscall(160, 4, zero), ctypes.get_errno())
print(libc.syscall(302, 0, ctypes.c_long((0xFFFF << 32) | 4), zero, None))
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
    control = subprocess.run([PYTHON, "-c", source], capture_output=True, check=True)
    assert control.stdout.splitlines()[-1] == b"(0, 0)", "unconfined the limit goes down"
    for profile in ("default", reporting("default")):
        seen = confined.run([PYTHON, "-c", source], profile=profile)
        assert seen.stdout.splitlines() == [b"(1, 1)", b"-1 1", b"0", b"(1, 1)"], seen.stderr
    assert [event["name"] for event in confined.denied(seen)] == ["setrlimit"], "nothing refused what it pretends"


def test_terminals_are_bounded_per_sandbox_since_the_host_has_one_number_for_all(confined: Confined) -> None:
    source = """
import errno, os
made = 0
try:
    while made < 100:
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        made += 1
except OSError as error: print(errno.errorcode[error.errno])
print(made)
"""
    control = subprocess.run([PYTHON, "-c", source], capture_output=True, check=True)
    assert control.stdout == b"100\n", "unconfined they can be made"
    assert confined.run([PYTHON, "-c", source]).stdout == b"ENOSPC\n64\n"


def test_timers_and_queued_signals_are_bounded_per_sandbox(confined: Confined) -> None:
    source = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
made = 0
while made < 5000 and libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) == 0: made += 1
print(made)
"""
    control = subprocess.run([PYTHON, "-c", source], capture_output=True, check=True)
    assert control.stdout == b"5000\n", "unconfined they can be made"
    assert 0 < int(confined.run([PYTHON, "-c", source]).stdout) <= 4096


def test_realtime_and_negative_nice_are_refused(confined: Confined) -> None:
    source = """
import errno, os
for attempt in (
    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
):
    try: print("worked", attempt())
    except OSError as error: print(errno.errorcode[error.errno])
"""
    for answer in confined.run([PYTHON, "-c", source]).stdout.split():
        assert answer in (b"EPERM", b"EACCES")


def test_locked_and_huge_memory_are_refused(confined: Confined) -> None:
    source = """
import ctypes, errno, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
answer = libc.mmap(None, 2 << 20, 3, 0x40022, -1, 0)
print("huge", errno.errorcode[ctypes.get_errno()] if answer == ctypes.c_void_p(-1).value else "worked")
memory = mmap.mmap(-1, 256 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
print("locked", errno.errorcode[ctypes.get_errno()] if libc.mlock(ctypes.c_void_p(address), 256 << 20) else "worked")
"""
    for profile in ("default", reporting("default")):
        result = confined.run([PYTHON, "-c", source], profile=profile)
        answers = dict(line.split() for line in result.stdout.splitlines())
        assert answers[b"huge"] == b"EPERM"
        assert answers[b"locked"] in (b"EPERM", b"ENOMEM", b"EAGAIN")
    assert [(event["name"], event["errno"]) for event in confined.denied(result)] == [("mmap", "EPERM")]


FLOOD = """
import ctypes, sys, threading
libc = ctypes.CDLL(None)
def flood():
    for _ in range(int(sys.argv[1])): libc.syscall(101, 0, 0, 0, 0)
threads = [threading.Thread(target=flood) for _ in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""


def test_x15_threads_of_refused_calls_starve_nobody(confined: Confined) -> None:
    """Every refusal is the kernel's own, so the daemon has nothing to queue."""
    result = confined.run([PYTHON, "-c", FLOOD, "2000"])
    assert (result.end_reason, result.stdout) == (EndReason.EXITED, b"done\n")
    assert confined.run(["/bin/true"]).exit_code == 0


def test_x15_threads_of_reported_calls_starve_nobody_and_each_call_is_counted(confined: Confined) -> None:
    """Init answers one after the other, and tells of them all in a few events."""
    result = confined.run([PYTHON, "-c", FLOOD, "100"], profile=reporting("default"))
    assert (result.end_reason, result.stdout) == (EndReason.EXITED, b"done\n")
    events = [event for event in confined.denied(result) if event["name"] == "ptrace"]
    assert sum(event["count"] for event in events) == 4000  # type: ignore[misc]
    assert len(events) < 200
    assert confined.run(["/bin/true"]).exit_code == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"memory_bytes": 1 << 49},
        {"pids": 1 << 30},
        {"wall_seconds": 1e9},
        {"output_bytes": 1 << 49},
        {"memory_bytes": 0},
        {"wall_seconds": -1.0},
        {"wall_seconds": float("nan")},
        {"wall_seconds": float("inf")},
        {"cpus": 0.0},
        {"pids": 0},
    ],
    ids=str,
)
def test_a_caller_can_only_tighten(limits: dict[str, float], confined: Confined) -> None:
    with pytest.raises(SandboxdError) as caught:
        confined.run(["/bin/true"], limits=limits)
    assert isinstance(caught.value, InvalidRequest), caught.value
    assert next(iter(limits)) in str(caught.value), "the message names the limit"


def test_many_tiny_writes_leave_the_daemon_flat(confined: Confined) -> None:
    """One byte at a time: what costs the daemon is the number of writes, not their size."""
    spawner = confined.daemon.process.pid
    before = proc.resident_bytes(proc.daemon_pid(spawner))
    source = "import os\nfor _ in range(200000): os.write(1, b'x')"
    result = confined.run([PYTHON, "-c", source])
    assert result.usage.stdout_bytes == 200_000
    assert proc.resident_bytes(proc.daemon_pid(spawner)) - before < 48 << 20


def test_closed_streams_do_not_end_the_execution(confined: Confined) -> None:
    """stdout and stderr closed at once: the end is the program's exit, not the end of its output."""
    source = "import os, time\nos.close(1); os.close(2); os.close(0); time.sleep(0.5); os._exit(7)"
    result = confined.run([PYTHON, "-c", source])
    assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 7)


def test_output_held_open_by_a_survivor_does_not_hold_the_execution(confined: Confined) -> None:
    result = confined.run(["/bin/sh", "-c", "setsid sleep 1000 & echo done; exit 5"])
    assert (result.end_reason, result.exit_code, result.stdout) == (EndReason.EXITED, 5, b"done\n")
