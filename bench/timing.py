"""One run of one command, timed from outside: to its first byte of output, and to its end with everything reaped.

Uses posix_spawn, so that the size of this process does not count. Called for every peer by `race`.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FIRST_FREE = 9


@dataclass(frozen=True, slots=True)
class Sample:
    """Milliseconds. `first` is None without output; `cpu` of everything that was waited for, where that is known."""

    total: float
    first: float | None
    cpu: float | None


class RunFailed(Exception):
    """The command did not end with 0; the message has its status and the end of its output."""


def run(argv: Sequence[str], environment: Mapping[str, str], opened: Path | None = None) -> Sample:
    """`opened` is given to the command as descriptor 9, read from its beginning."""
    read, write = os.pipe2(os.O_CLOEXEC)
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_DUP2, write, 1),
        (os.POSIX_SPAWN_DUP2, write, 2),
    ]
    if opened is not None:
        actions.append((os.POSIX_SPAWN_OPEN, _FIRST_FREE, str(opened), os.O_RDONLY, 0))
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], list(argv), environment, file_actions=actions)
    os.close(write)
    first, output = None, b""
    while piece := os.read(read, 65536):
        first = first or time.perf_counter()
        output += piece
    _, status, usage = os.wait4(pid, 0)
    ended = time.perf_counter()
    os.close(read)
    if status:
        said = output[-200:].decode(errors="replace").strip()
        raise RunFailed(f"{argv[0]} ended with {os.waitstatus_to_exitcode(status)}: {said}")
    cpu = (usage.ru_utime + usage.ru_stime) * 1000
    return Sample((ended - began) * 1000, (first - began) * 1000 if first else None, cpu)
