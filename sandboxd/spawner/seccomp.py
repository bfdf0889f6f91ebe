"""Lays out a compiled filter for seccomp(2). The bytes come from a template; nothing here changes them.

Raw because pyseccomp cannot set all flags and loads twice; called when templates are read, used by `payload`.
"""

import ctypes
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
