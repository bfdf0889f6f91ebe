"""Builds the Landlock ruleset of a sandbox inside its finished view. Never opens a path for writing.

Called by `init` once per sandbox; each execution then only restricts itself with the ready ruleset.
Source: Linux Documentation/userspace-api/landlock.rst.
"""

import os
import struct
from collections.abc import Iterable

from sandboxd.spawner import sys

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE = 1 << 4 | 1 << 5
_MAKE_DIR_REG_SOCK_FIFO_SYM = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12  # never a device: bits 6 and 11
_REFER = 1 << 13  # ABI 2
_TRUNCATE = 1 << 14  # ABI 3
_IOCTL_DEV = 1 << 15  # ABI 5
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0  # ABI 6
_SCOPE_SIGNAL = 1 << 1  # ABI 6

_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _REMOVE | _MAKE_DIR_REG_SOCK_FIFO_SYM | _REFER | _TRUNCATE
_ACCESS = {
    "read": _READ,
    "exec": _READ | _EXECUTE,
    "write": _WRITE,
    "write_exec": _WRITE | _EXECUTE,
    "device": _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV,
    "devices": _READ | _WRITE_FILE | _IOCTL_DEV,
    "list": _READ_DIR,
}
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def abi() -> int:
    """The Landlock ABI of this kernel, 0 if it has none or it is off."""
    try:
        return sys.landlock_create_ruleset(None, 1)
    except OSError:
        return 0


def handled_access(version: int) -> int:
    """Every file-system right that an ABI can control: what no rule grants is refused."""
    access = (1 << 13) - 1
    if version >= 2:
        access |= _REFER
    if version >= 3:
        access |= _TRUNCATE
    if version >= 5:
        access |= _IOCTL_DEV
    return access


def build(version: int, rules: Iterable[tuple[str, str]], scoped: bool) -> int:
    """A ruleset descriptor for these (path, access) pairs; a path that the view lacks grants nothing."""
    handled = handled_access(version)
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", 0)  # network rules are no egress control: the network namespace is
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if scoped else 0)
    ruleset = sys.landlock_create_ruleset(attributes)
    for path, access in rules:
        _add(ruleset, path, _ACCESS[access] & handled)
    return ruleset


def _add(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        is_directory = os.fstat(fd).st_mode & 0o170000 == 0o040000
        sys.landlock_add_path(ruleset, access if is_directory else access & _OF_A_FILE, fd)
    finally:
        os.close(fd)
