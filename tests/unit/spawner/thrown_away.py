"""Runs a piece of a test in a forked child with a mount namespace of its own, so that nothing of it stays."""

import os
import traceback
from collections.abc import Callable

from sandboxd.spawner import sys


def in_own_mounts(body: Callable[[], object]) -> str:
    """What `body` returned, as text; an AssertionError with the child's traceback if it raised."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = b"!the child ended by itself"
        try:
            sys.unshare(sys.CLONE_NEWNS)
            sys.mount("none", "/", "", sys.MS_REC | sys.MS_PRIVATE)
            answer = str(body()).encode()
        except BaseException:
            answer = b"!" + traceback.format_exc().encode()
            raise
        finally:
            os.write(write, answer[-60_000:])
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    assert not answer.startswith(b"!"), answer.decode()
    return answer.decode()
