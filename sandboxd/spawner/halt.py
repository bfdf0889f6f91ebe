"""Stops the programs of a sandbox from inside, where it has no cgroup that could be frozen.

A stopped process goes on at the next SIGCONT, and one that saw it coming can have the kernel send it one, by a timer of
its own for instance. So they are watched: whoever has run since all stood still has evaded, and init ends them all.
Called by `init`, as PID 1 of the pid namespace, whom these signals do not reach.
"""

import errno
import os
import signal
import time
from dataclasses import dataclass

_ROUNDS = 100
_PAUSE_SECONDS = 0.002
_STOPPED = "Tt"
_GONE = "ZX"
_IN_THE_KERNEL = "D"  # waits for an answer to its system call; it will stop on its way back
_STILL = _STOPPED + _GONE + _IN_THE_KERNEL


@dataclass(frozen=True, slots=True)
class _Thread:
    state: str
    switches: tuple[int, ...]  # how often it was given and taken a CPU: it stays the same while it stands still


class Halted:
    """From its making on they stand still; OSError if they do not, and then all go on."""

    def __init__(self) -> None:
        self._before = {pid for pid in _pids() if all(thread.state in _STOPPED for thread in _threads(pid).values())}
        self._seen: dict[int, _Thread] = {}
        for _ in range(_ROUNDS):
            # Reaches what is being forked at this moment, too; but not what another one continues meanwhile.
            _stop_all()
            before, self._seen = self._seen, _all_threads()
            # One that is told as stopped may still be on its way off the CPU, which counts as a switch.
            if self._seen == before and all(thread.state in _STILL for thread in self._seen.values()):
                return
            time.sleep(_PAUSE_SECONDS)
        self.release()
        raise OSError(errno.ETIMEDOUT, "its programs do not stand still")

    def evaded(self) -> bool:
        """Whether any has run since the last look that should not have."""
        now = _all_threads()
        ran = any(_has_run(self._seen.get(thread_id), thread) for thread_id, thread in now.items())
        self._seen = now
        return ran

    def release(self) -> None:
        """Those go on that were not stopped before."""
        for pid in _pids():
            if pid not in self._before:
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    continue


def _has_run(before: _Thread | None, now: _Thread) -> bool:
    if now.state in _GONE:
        return False
    if before is None:
        return True  # it was made meanwhile
    return before.state in _STOPPED and now != before


def _stop_all() -> None:
    try:
        os.kill(-1, signal.SIGSTOP)
    except ProcessLookupError:
        return  # nobody is there


def _pids() -> list[int]:
    """OSError without a proc: then nobody could tell whether they stand still."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and name != "1"]


def _all_threads() -> dict[int, _Thread]:
    return {thread_id: thread for pid in _pids() for thread_id, thread in _threads(pid).items()}


def _threads(pid: int) -> dict[int, _Thread]:
    """Also where the first of them has ended: the others go on without it."""
    found = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            found[int(name)] = _read(f"/proc/{pid}/task/{name}/status")
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ends just now
    return found


def _read(path: str) -> _Thread:
    with open(path, "rb") as file:
        lines = dict(line.split(b":", 1) for line in file.read().split(b"\n") if b":" in line)
    switches = (lines[b"voluntary_ctxt_switches"], lines[b"nonvoluntary_ctxt_switches"])
    return _Thread(lines[b"State"].split()[0].decode(), tuple(map(int, switches)))
