"""One end of seccomp's user notification: the calls that a filter hands over, and what they get for an answer.

Only moves bytes. A notification names a process by a number that may be another's by the time it is used, so whoever
looks at it asks `is_pending` afterwards, and believes what was seen only then. Called by `mediation`; source:
linux/seccomp.h.
"""

import errno
import fcntl
import os
import platform
import select
import signal
import struct
from dataclasses import dataclass

from sandboxd.spawner import seccomp, sys

NOTIFICATION_BYTES = 80  # struct seccomp_notif
ANSWER_BYTES = 24  # struct seccomp_notif_resp
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, struct seccomp_data
_ANSWER = struct.Struct("=QqiI")  # id, val, error, flags
_ID = struct.Struct("=Q")
_RECV = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_ID_VALID = 0x40082102  # SECCOMP_IOCTL_NOTIF_ID_VALID
_USER_NOTIF = 0x7FC00000  # SECCOMP_RET_USER_NOTIF
_TRIAL_MILLISECONDS = 10_000
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(platform.machine(), 0)  # AUDIT_ARCH_*


@dataclass(frozen=True, slots=True)
class Notification:
    """A call that waits for an answer. `thread` is the caller's, in this process's pid namespace."""

    key: int
    thread: int
    number: int
    arch: int
    args: tuple[int, int, int, int, int, int]

    @property
    def is_native(self) -> bool:
        """Whether its number means what it means to us."""
        return self.arch == _ARCHITECTURE


class Listener:
    """Owns the descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def receive(self) -> Notification | None:
        """The next call; None if the one that poll(2) saw has gone. Asked only after poll(2), and so never waits.

        That one may be gone, but the kernel's count of what came is only ever lowered here.
        """
        buffer = bytearray(NOTIFICATION_BYTES)  # the kernel refuses one that is not all zeros
        try:
            _ioctl(self.fd, _RECV, buffer)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        key, thread, _, number, arch, _, *args = _NOTIFICATION.unpack(buffer)
        return Notification(key, thread, number, arch, (args[0], args[1], args[2], args[3], args[4], args[5]))

    def is_pending(self, key: int) -> bool:
        """Whether that very call still waits, so that its process was the caller until now."""
        try:
            _ioctl(self.fd, _ID_VALID, bytearray(_ID.pack(key)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def refuse(self, key: int, number: int) -> None:
        """The call fails with this errno; nothing happens if its process has gone."""
        self._answer(_ANSWER.pack(key, 0, -number, 0))

    def let(self, key: int) -> None:
        """The kernel makes the call, reading its arguments anew."""
        self._answer(_ANSWER.pack(key, 0, 0, _CONTINUE))

    def close(self) -> None:
        """What still waits fails with ENOSYS."""
        os.close(self.fd)

    def _answer(self, answer: bytes) -> None:
        try:
            _ioctl(self.fd, _SEND, bytearray(answer))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def attempt() -> None:
    """Have a call handed over and refused, in a process that is thrown away; OSError if that cannot be had here."""
    if sys.seccomp_notif_sizes()[:2] != (NOTIFICATION_BYTES, ANSWER_BYTES):
        raise OSError(errno.ENOTSUP, "the kernel's notifications have another size")
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    asking = seccomp.answering(sys.KEYCTL, _USER_NOTIF)
    listening = Listener(sys.seccomp_listen(asking.program))
    pid = os.fork()
    if pid == 0:
        try:
            sys.join_new_session_keyring()
        except OSError as error:
            os._exit(error.errno or 0)
        finally:
            os._exit(0)
    poll = select.poll()
    poll.register(listening.fd, select.POLLIN)
    called = listening.receive() if poll.poll(_TRIAL_MILLISECONDS) else None
    if called is None:
        os.kill(pid, signal.SIGKILL)
    else:
        listening.refuse(called.key, errno.EDOM)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if called is None or called.number != sys.KEYCTL or not called.is_native or status != errno.EDOM:
        raise OSError(errno.ENOTSUP, "the kernel does not hand a call over as it should")


def _ioctl(fd: int, request: int, buffer: bytearray) -> None:
    """Again after a signal: nothing was done then."""
    while True:
        try:
            fcntl.ioctl(fd, request, buffer)
        except InterruptedError:
            continue
        return
