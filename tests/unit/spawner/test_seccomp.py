"""A filter's bytes as seccomp(2) wants them."""

import errno
import os
import platform
import struct

import pytest

from sandboxd.spawner import sys
from sandboxd.spawner.seccomp import Filter, FilterInvalid

_INSTRUCTION = "=HBBI"
_GETPPID = 110 if platform.machine() == "x86_64" else 173
# Load the system call's number; is it getppid? EPERM : allow.
REFUSE_GETPPID = b"".join(
    struct.pack(_INSTRUCTION, *row)
    for row in ((0x20, 0, 0, 0), (0x15, 0, 1, _GETPPID), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000))
)


@pytest.mark.parametrize("code", [b"", b"1234567", bytes(9), bytes(8 * 4097)], ids=len)
def test_bytes_that_are_no_filter_are_refused(code: bytes) -> None:
    with pytest.raises(FilterInvalid, match="is not 1 to 4096 instructions"):
        Filter(code)


def test_kernel_takes_the_filter_and_obeys_it() -> None:
    kept = Filter(REFUSE_GETPPID)  # the program points into it
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, b"control " if os.getppid() > 0 else b"")
            sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
            sys.seccomp_set_filter(kept.program)
            os.write(write, b"refused" if os.getppid() < 0 else b"allowed")
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"control refused"
    os.close(read)


def test_kernel_refuses_a_filter_that_never_returns() -> None:
    kept = Filter(struct.pack(_INSTRUCTION, 0x20, 0, 0, 0))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
            sys.seccomp_set_filter(kept.program)
        except OSError as error:
            status = 0 if error.errno == errno.EINVAL else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
