"""A real spawner in a fresh interpreter whose two children are the test: it gets what each would have been given.

Run by `spawner_rig.start` as `python -m tests.unit.spawner.rig MEETING_FD IMPORTS_FD ARGUMENTS…`. Everything is the
real thing but `children.start`. What is imported once the stage was entered is noted in IMPORTS_FD.
"""

import array
import mmap
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandboxd.spawner import __main__ as spawner
from sandboxd.spawner import children, site
from sandboxd.spawner.mounts import Stage
from sandboxd.spawner.options import Options

NOTES_BYTES = 1 << 16
_MEETING, _NOTES = (int(argument) for argument in (sys.argv.pop(1), sys.argv.pop(1)))
_notes = mmap.mmap(_NOTES, NOTES_BYTES)
_settle = site.settle


def start(
    stage: Stage,
    identity: children.Identity,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Mapping[int, int],
    readable: Sequence[Path],
) -> children.Child:
    """A child that hands its descriptor and a line to itself to the test, then ends with the status that it is told."""
    pid = os.fork()
    if pid:
        return children.Child(pid, os.pidfd_open(pid))
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = array.array("i", [theirs.fileno(), *descriptors.values()])
        with socket.socket(fileno=_MEETING) as meeting:
            meeting.sendmsg([" ".join(arguments).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        theirs.close()
        os.closerange(3, ours.fileno())
        os.closerange(ours.fileno() + 1, 4096)
        os._exit(int(ours.recv(16) or b"1"))
    finally:
        os._exit(71)


def settle(options: Options) -> site.Site:
    settled = _settle(options)
    sys.addaudithook(_note)
    return settled


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import":
        _notes.seek(0)
        used = _notes.read().find(b"\0")
        _notes[used : used + 1 + len(str(arguments[0]))] = f"{arguments[0]}\n".encode()


if __name__ == "__main__":
    children.start = start
    vars(spawner)["settle"] = settle
    sys.exit(spawner.main())
