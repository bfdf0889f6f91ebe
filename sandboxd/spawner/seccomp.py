"""Lays out a compiled filter for seccomp(2). The bytes come from a template; nothing here changes them.

Raw because pyseccomp cannot set all flags and loads twice; called when templates are read, used by `payload`.
"""

import ctypes
import errno
import struct

_INSTRUCTION_BYTES = 8
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class FilterInvalid(ValueError):
    """These bytes are no filter that the kernel would take."""


class Filter:
    """A `struct sock_fprog` with its instructions, kept alive together and inherited by fork."""

    def __init__(self, code: bytes) -> None:
        count, rest = divmod(len(code), _INSTRUCTION_BYTES)
        if rest or not 0 < count <= _MAX_INSTRUCTIONS:
            raise FilterInvalid(f"a filter of {len(code)} bytes is not 1 to {_MAX_INSTRUCTIONS} instructions")
        self._code = ctypes.create_string_buffer(code, len(code))
        header = struct.pack("@HP", count, ctypes.addressof(self._code))
        self.program = ctypes.create_string_buffer(header, len(header))


def answering(number: int, action: int) -> Filter:
    """Gives that one call this answer, and lets all others be made."""
    return Filter(_program((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, action), (0x06, 0, 0, 0x7FFF0000)))


def _program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


# For our own helpers: whatever they may do, no call of theirs goes through an io_uring, which no filter sees. The event
# loop's library opens one where it can. Numbers from 424 on are the same on every architecture, x32's but for its bit.
WITHOUT_RINGS = Filter(
    _program(
        (0x20, 0, 0, 0),  # the call's number
        (0x54, 0, 0, 0xBFFFFFFF),
        (0x35, 0, 2, 425),  # io_uring_setup, io_uring_enter,
        (0x25, 1, 0, 427),  # io_uring_register
        (0x06, 0, 0, 0x00050000 | errno.ENOSYS),
        (0x06, 0, 0, 0x7FFF0000),
    )
)
