"""The real spawner, except that in the daemon's place it starts `bridge.py`, which hands the socket to the test."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandboxd.spawner import __main__ as spawner
from sandboxd.spawner import children
from sandboxd.spawner.mounts import Stage

BRIDGE = Path(__file__).with_name("bridge.py")
MEETING = sys.argv.pop(1)
_start = children.start


def start(
    stage: Stage,
    identity: children.Identity,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Mapping[int, int],
    readable: Sequence[Path],
) -> children.Child:
    if "sandboxd.daemon" in arguments:
        arguments = (str(BRIDGE), MEETING, str(children.DAEMON_SOCKET_FD))
        readable = (*readable, Path(MEETING))
    return _start(stage, identity, arguments, environment, descriptors, readable)


if __name__ == "__main__":
    children.start = start
    sys.exit(spawner.main())
