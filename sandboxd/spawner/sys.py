"""One typed wrapper per system call that Python 3.11 lacks. Kernel names, kernel flags, OSError with call and path.

Never decides anything. Called by the rest of `spawner`; numbers are those of x86_64 and of the generic table (arm64).
"""

import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_VM: Final = 0x00000100
CLONE_FILES: Final = 0x00000400
CLONE_PARENT: Final = 0x00008000
CLONE_PIDFD: Final = 0x00001000
CLONE_INTO_CGROUP: Final = 0x200000000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

OPEN_TREE_CLONE: Final = 1
AT_RECURSIVE: Final = 0x8000
AT_EMPTY_PATH: Final = 0x1000
AT_FDCWD: Final = -100
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4
MOUNT_ATTR_NOEXEC: Final = 8
MOUNT_ATTR_IDMAP: Final = 0x100000

RESOLVE_NO_MAGICLINKS: Final = 2
RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39

SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_GET_NOTIF_SIZES: Final = 3
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 32  # Linux 5.19
KEYCTL_JOIN_SESSION_KEYRING: Final = 1

SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1
SIG_SETMASK: Final = 2
_OF_LIBC: Final = (32, 33)  # what libc keeps for its threads, and hides from every call of its own: signal(7)
_SIGCHLD: Final = 17
_LAST_CAPABILITY: Final = 40  # CAP_CHECKPOINT_RESTORE, Linux 5.9

# Above 424 the numbers are the same on every architecture.
_X86_64: Final = {
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "capget": 125,
    "capset": 126,
    "pivot_root": 155,
    "keyctl": 250,
    "execve": 59,
    "seccomp": 317,
    "execveat": 322,
}
_GENERIC: Final = {
    "pivot_root": 41,
    "capget": 90,
    "capset": 91,
    "rt_sigaction": 134,
    "rt_sigprocmask": 135,
    "keyctl": 219,
    "execve": 221,
    "seccomp": 277,
    "execveat": 281,
}
_NR: Final = {
    **(_X86_64 if platform.machine() == "x86_64" else _GENERIC),
    "open_tree": 428,
    "move_mount": 429,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

KEYCTL: Final = _NR["keyctl"]
EXECVE: Final = _NR["execve"]
EXECVEAT: Final = _NR["execveat"]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.setfsuid.argtypes = [ctypes.c_uint]
_libc.setfsgid.argtypes = [ctypes.c_uint]
_keeper_stack = ctypes.create_string_buffer(16 * 1024)  # there is none but its parent's memory
# The child of a clone must come back holding the GIL, so this one call does not release it.
_holding_gil = ctypes.PyDLL(None, use_errno=True)
_holding_gil.syscall.restype = ctypes.c_long


def _fail(call: str, subject: str = "") -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", subject or None)


def _path(path: str) -> bytes:
    """For C, which ends a string at its first NUL: a path must not come out shorter than it was checked."""
    if "\0" in path:
        raise OSError(errno.EINVAL, "embedded NUL", path)
    return os.fsencode(path)


def _syscall(name: str, *arguments: object, subject: str = "") -> int:
    result: int = _libc.syscall(_NR[name], *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise _fail(name, subject)
    return result


def clone3(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """fork(2) into new namespaces: (pid, pidfd) in the parent, (0, -1) in the child. SIGCHLD ends it.

    Python's own fork hooks run, so both sides are whole interpreters; only ever called from a single thread.
    """
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    pid = _clone3(flags, ctypes.addressof(pidfd), _SIGCHLD, cgroup_fd or 0)
    return pid, pidfd.value if pid else -1


def fork_with_descriptors() -> int:
    """fork(2) of a child of our parent that has our very descriptors: what one opens or closes, both do."""
    return _clone3(CLONE_FILES | CLONE_PARENT, 0, 0, 0)


def _clone3(flags: int, pidfd_at: int, exit_signal: int, cgroup_fd: int) -> int:
    packed = struct.pack("=11Q", flags, pidfd_at, 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup_fd)
    arguments = ctypes.create_string_buffer(packed, len(packed))
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _holding_gil.syscall(_NR["clone3"], arguments, ctypes.c_long(len(packed)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return pid


def keep_memory() -> int:
    """A process that shares this one's memory and does nothing until it is killed, as a child of our parent: its pid.

    While it lives, execve(2) here lets go of the memory instead of taking it apart page by page. It gets a copy of our
    descriptors and of our ids.
    """
    stack = ctypes.addressof(_keeper_stack) + len(_keeper_stack) & ~15
    pid: int = _libc.clone(_libc.pause, ctypes.c_void_p(stack), CLONE_VM | CLONE_PARENT | _SIGCHLD, None)
    if pid < 0:
        raise _fail("clone")
    return pid


def unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise _fail("unshare", hex(flags))


def setns(fd: int, flags: int) -> None:
    if _libc.setns(fd, flags):
        raise _fail("setns", hex(flags))


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    if _libc.mount(_path(source), _path(target), fstype.encode(), flags, data.encode()):
        raise _fail("mount", target)


def umount2(target: str, flags: int) -> None:
    if _libc.umount2(_path(target), flags):
        raise _fail("umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    _syscall("pivot_root", _path(new_root), _path(put_old), subject=new_root)


def open_tree(path: str, flags: int, dir_fd: int = AT_FDCWD) -> int:
    return _syscall("open_tree", dir_fd, _path(path), flags | os.O_CLOEXEC, subject=path)


def move_mount(fd: int, to_path: str, to_dir_fd: int = AT_FDCWD) -> None:
    """Attach a detached tree. An empty `to_path` means `to_dir_fd` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    _syscall("move_mount", fd, b"", to_dir_fd, _path(to_path), flags, subject=to_path)


def mount_setattr(fd: int, set_attributes: int, flags: int = AT_EMPTY_PATH, user_namespace_fd: int = 0) -> None:
    """Add mount attributes to the mount behind `fd`, with AT_RECURSIVE to all below it. Never clears one.

    Makes it private as well: a clone of a shared mount would go on to receive what the host mounts below it. The user
    namespace is that of MOUNT_ATTR_IDMAP.
    """
    attributes = struct.pack("=4Q", set_attributes, 0, MS_PRIVATE, user_namespace_fd)
    _syscall("mount_setattr", fd, b"", flags | AT_EMPTY_PATH, attributes, 32)


def openat2(dir_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall("openat2", dir_fd, _path(path), how, len(how), subject=path)


def default_the_signals_of_libc() -> None:
    """Neither ignored nor handled, whatever our starter left: libc's own calls, and so Python's, do not reach them."""
    for number in _OF_LIBC:
        _syscall("rt_sigaction", number, bytes(32), None, 8)


def unblock_every_signal() -> None:
    """Those of libc too, which `signal.pthread_sigmask` leaves as they are."""
    _syscall("rt_sigprocmask", SIG_SETMASK, bytes(8), None, 8)


def close_range(first: int, last: int) -> None:
    _syscall("close_range", first, last, 0)


def prctl(option: int, argument: int = 0, second: int = 0) -> int:
    result: int = _libc.prctl(option, argument, second, 0, 0)
    if result < 0:
        raise _fail("prctl", str(option))
    return result


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets of this thread."""
    header = struct.pack("=Ii", 0x20080522, 0)
    _syscall("capset", header, bytes(24))


def drop_bounding_set() -> None:
    """Nothing that this thread starts can gain a capability; what it has itself stays."""
    for capability in range(_LAST_CAPABILITY + 1):
        prctl(PR_CAPBSET_DROP, capability)


def effective_capabilities() -> int:
    data = ctypes.create_string_buffer(24)
    _syscall("capget", struct.pack("=Ii", 0x20080522, 0), data)
    words = struct.unpack("=6I", data.raw)
    effective: int = words[0] | words[3] << 32
    return effective


def set_fs_ids(uid: int, gid: int) -> None:
    """File access as that user from here on; leaving 0 also drops the file capabilities while it lasts."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)


def join_new_session_keyring() -> None:
    _syscall("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None)


def seccomp_set_filter(program: ctypes.Array[ctypes.c_char]) -> None:
    """Install the filter that `seccomp.program` laid out."""
    _syscall("seccomp", SECCOMP_SET_MODE_FILTER, 0, program)


def seccomp_listen(program: ctypes.Array[ctypes.c_char]) -> int:
    """Install a filter that asks: the descriptor of whoever is to answer, close-on-exec.

    A call that was received then waits for its answer until it is killed: a signal would have it made, and asked about,
    a second time.
    """
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    return _syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, program)


def seccomp_notif_sizes() -> tuple[int, int, int]:
    """What this kernel writes for a notification, reads for an answer, and shows of a call, in bytes."""
    sizes = ctypes.create_string_buffer(6)
    _syscall("seccomp", SECCOMP_GET_NOTIF_SIZES, 0, sizes)
    notification, answer, call = struct.unpack("=3H", sizes.raw)
    return notification, answer, call


def landlock_create_ruleset(attributes: bytes | None, flags: int = 0) -> int:
    return _syscall("landlock_create_ruleset", attributes, len(attributes or b""), flags)


def landlock_add_path(ruleset_fd: int, access: int, path_fd: int) -> None:
    _syscall("landlock_add_rule", ruleset_fd, 1, struct.pack("=Qi", access, path_fd), 0)


def landlock_restrict_self(ruleset_fd: int) -> None:
    _syscall("landlock_restrict_self", ruleset_fd, 0)


def loopback_up() -> None:
    """Bring `lo` up in the network namespace of this thread."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = bytearray(struct.pack("16sH14x", b"lo", 0))
        fcntl.ioctl(sock, SIOCGIFFLAGS, request)
        flags = struct.unpack_from("H", request, 16)[0]
        struct.pack_into("H", request, 16, flags | IFF_UP)
        fcntl.ioctl(sock, SIOCSIFFLAGS, request)


def sethostname(name: str) -> None:
    socket.sethostname(name)
