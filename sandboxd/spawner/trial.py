"""Tries out in throw-away children what a sandbox will need, since versions and settings only hint at what works.

Standard library only. Never changes anything outside such a child. Called by `probe`, from a process with one thread.
"""

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from sandboxd.spawner import idmap, ids, landlock, listener, seccomp, sys

_SECONDS = 20  # for one trial
_REPORT_BYTES = 64 * 1024
_MFD_NOEXEC_SEAL = 8
_MFD_EXEC = 16
_HARD = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC
_SCHED_YIELD = {"x86_64": 24}.get(platform.machine(), 124)
_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000
_UNMAPPED_MEANWHILE = 65534

Body = Callable[[], None]


class NotHeld(Exception):
    """The kernel took the setting but does not act on it."""


def attempt(body: Body) -> str:
    """Run it in a child: empty if it went well, else what failed."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        message = "+"
        try:
            body()
        except (OSError, NotHeld, ids.IdsUnavailable) as error:
            message = f"-{error}"
        finally:
            os.write(write_end, message.encode(errors="replace")[:4096])
            os._exit(0)
    os.close(write_end)
    answer = _read_to_end(read_end, _SECONDS)
    os.close(read_end)
    if answer is None:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if answer is None:
        return f"no answer within {_SECONDS} seconds"
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    if answer == b"+":
        return ""
    return answer[1:].decode(errors="replace") or "ended without an answer"  # as after an execve that worked


def _read_to_end(fd: int, seconds: int) -> bytes | None:
    """All that comes; None if the writer neither wrote nor ended for so long."""
    data = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while True:
        if not _comes(poller.poll, seconds):
            return None
        piece = os.read(fd, _REPORT_BYTES)
        if not piece:
            return data
        data += piece


def _comes(poll: Callable[[int], object], seconds: int) -> bool:
    """In short waits: a time in which the machine, or this process and its child, stood still ends but one of them."""
    return any(poll(1000) for _ in range(seconds))


def run_all(mode: str) -> dict[str, str]:
    """Every trial of `TRIALS` as a spawner in that mode would do it: name → empty, or what failed.

    The name `enter` stands for the spawner's own user namespace, without which a rootless one can do nothing else.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            for result in _in_stage(mode):
                os.write(write_end, json.dumps(result).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(write_end)
    # Each result as it comes, since all of them together may take a busy machine long; a hanging one ends itself first.
    answer = _read_to_end(read_end, 2 * _SECONDS)
    os.close(read_end)
    if answer is None:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if not answer:
        return {"enter": "the trials ended without an answer"}
    results: dict[str, str] = dict(json.loads(line) for line in answer.split(b"\n")[:-1])
    return results


def _in_stage(mode: str) -> Iterator[tuple[str, str]]:
    """Name and result, one after the other."""
    pool = None
    if mode != "root":
        try:
            pool = ids.enter_user_namespace(mode)
        except (OSError, ids.IdsUnavailable) as error:
            yield "enter", str(error)
            return
    block = pool.take() if pool is not None else ids.IdBlock(1, _UNMAPPED_MEANWHILE, _UNMAPPED_MEANWHILE, True)
    yield "enter", ""
    yield "user", _user_namespace(block)
    for name, body in TRIALS.items():
        yield name, attempt(body)


def _user_namespace(block: ids.IdBlock) -> str:
    """A user namespace mapped from outside, in which a process is that user and nobody else."""
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            sys.unshare(sys.CLONE_NEWUSER)
            os.write(ready_write, b"+")
            os.read(go_read, 1)
            os.setresuid(block.init_inside, block.init_inside, block.init_inside)
            os.write(ready_write, b"+")
            os.read(go_read, 1)
        except OSError as error:
            os.write(ready_write, f"-{error}".encode())
        finally:
            os._exit(0)
    os.close(ready_write)
    try:
        answer = os.read(ready_read, 4096)
        if answer == b"+":
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/setgroups").write_text("deny")
            Path(f"/proc/{pid}/uid_map").write_text(block.uid_map())
            Path(f"/proc/{pid}/gid_map").write_text(block.gid_map())
            os.write(go_write, b"g")
            answer = os.read(ready_read, 4096)
        if answer != b"+":
            return answer[1:].decode(errors="replace")
        if os.stat(f"/proc/{pid}").st_uid == 0 and os.getuid() == 0:
            return "the user of the new user namespace is still uid 0 outside"
        return ""
    except OSError as error:
        return str(error)
    finally:
        for fd in (go_read, go_write, ready_read):
            os.close(fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _expect(number: int, body: Callable[[], object], what: str) -> None:
    """NotHeld unless it fails with that errno."""
    try:
        body()
    except OSError as error:
        if error.errno == number:
            return
        raise NotHeld(f"{what}: {error} instead of {errno.errorcode[number]}") from error
    raise NotHeld(f"{what}: it worked")


def _in_child(body: Body) -> None:
    """What only holds for processes born after the call, as with pid namespaces."""
    failure = attempt(body)
    if failure:
        raise NotHeld(failure)


def _pid() -> None:
    sys.unshare(sys.CLONE_NEWPID)

    def first() -> None:
        if os.getpid() != 1:
            raise NotHeld(f"the first process has pid {os.getpid()}")

    _in_child(first)


def _private_mounts(flags: int = 0) -> None:
    sys.unshare(sys.CLONE_NEWNS | flags)
    sys.mount("", "/", "", sys.MS_REC | sys.MS_PRIVATE)


def _bounded_tmpfs(flags: int = _HARD) -> None:
    """Over /proc, the one directory that is certainly there."""
    _private_mounts()
    sys.mount("tmpfs", "/proc", "tmpfs", flags, "size=64k,nr_inodes=8,mode=0755")


def _proc() -> None:
    _private_mounts(sys.CLONE_NEWPID)

    def own() -> None:
        sys.mount("proc", "/proc", "proc", _HARD)
        if os.readlink("/proc/self") != "1":
            raise NotHeld("the new proc shows another pid namespace")

    _in_child(own)


def _tmpfs() -> None:
    _bounded_tmpfs()
    _expect(errno.ENOSPC, lambda: Path("/proc/big").write_bytes(bytes(128 * 1024)), "writing beyond the size")
    Path("/proc/big").unlink()

    def many() -> None:
        for number in range(16):
            Path(f"/proc/{number}").touch()

    _expect(errno.ENOSPC, many, "more files than inodes")


def _noexec() -> None:
    _bounded_tmpfs()
    script = Path("/proc/script")
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    _expect(errno.EACCES, lambda: os.execv(str(script), ["script"]), "executing on a noexec mount")


def _dev() -> None:
    _bounded_tmpfs(sys.MS_NOSUID | sys.MS_NOEXEC)
    Path("/proc/null").touch()
    sys.mount("/dev/null", "/proc/null", "", sys.MS_BIND)
    Path("/proc/null").write_bytes(b"x")
    if Path("/proc/null").stat().st_size:
        raise NotHeld("the bound /dev/null is an ordinary file")


def _root() -> None:
    _bounded_tmpfs()
    Path("/proc/old").mkdir()
    sys.pivot_root("/proc", "/proc/old")
    os.chdir("/")
    sys.umount2("/old", sys.MNT_DETACH)
    if (seen := os.listdir("/")) != ["old"] or os.listdir("/old"):
        raise NotHeld(f"the new root shows {seen}")


def _net() -> None:
    sys.unshare(sys.CLONE_NEWNET)
    sys.loopback_up()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _expect(errno.ENETUNREACH, lambda: sock.connect(("192.0.2.1", 9)), "a route to another host")


def _uts() -> None:
    sys.unshare(sys.CLONE_NEWUTS)
    sys.sethostname("probe")
    if socket.gethostname() != "probe":
        raise NotHeld("the host name did not change")


def _kill_tree() -> None:
    """SIGKILL to the first process of a pid namespace ends a grandchild that left its session and ignores signals."""
    sys.unshare(sys.CLONE_NEWPID)
    read_end, write_end = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(read_end)
        if os.fork() == 0:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            if os.fork() == 0:
                os.write(write_end, b"+")
                signal.sigwait([signal.SIGUSR1])
            os._exit(0)
        signal.pause()
        os._exit(0)
    os.close(write_end)
    os.read(read_end, 1)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    poller = select.poll()
    poller.register(read_end, select.POLLIN)
    if not poller.poll(5000) or os.read(read_end, 1):
        raise NotHeld("a process outlived the first one of its pid namespace")


def _memfd_sysctl() -> None:
    sys.unshare(sys.CLONE_NEWPID)

    def refused() -> None:
        Path("/proc/sys/vm/memfd_noexec").write_text("2")
        _expect(errno.EACCES, lambda: os.memfd_create("probe", _MFD_EXEC), "an executable memfd")

    _in_child(refused)


def _memfd_seal() -> None:
    os.close(os.memfd_create("probe", _MFD_NOEXEC_SEAL))


def _restricted(handled: int, scoped: int = 0) -> None:
    attributes = struct.pack("=QQQ", handled, 0, scoped) if scoped else struct.pack("=Q", handled)
    ruleset = sys.landlock_create_ruleset(attributes)
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    sys.landlock_restrict_self(ruleset)


def _landlock_files() -> None:
    _restricted(landlock.handled_access(1))
    _expect(errno.EACCES, lambda: os.open("/etc", os.O_RDONLY), "opening a path that no rule names")


def _landlock_exec() -> None:
    _restricted(1)
    _expect(errno.EACCES, lambda: os.execv("/bin/true", ["true"]), "executing a path that no rule names")


def _landlock_scopes() -> None:
    _restricted(landlock.handled_access(1), scoped=3)
    _expect(errno.EPERM, lambda: os.kill(os.getppid(), 0), "a signal out of the scope")


def _filter(action: int) -> None:
    """Install a filter that answers sched_yield(2) with that action and allows the rest."""
    load_number, jump_equal, answer = 0x20, 0x15, 0x06
    code = struct.pack("=HBBI", load_number, 0, 0, 0) + struct.pack("=HBBI", jump_equal, 0, 1, _SCHED_YIELD)
    code += struct.pack("=HBBI", answer, 0, 0, action) + struct.pack("=HBBI", answer, 0, 0, _RET_ALLOW)
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    whole = seccomp.Filter(code)  # named, so that its instructions live until the kernel has read them
    sys.seccomp_set_filter(whole.program)


def _seccomp() -> None:
    def refused() -> None:
        _filter(_RET_ERRNO | errno.EDOM)
        _expect(errno.EDOM, _sched_yield, "a refused call")

    _in_child(refused)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            _filter(_RET_KILL_PROCESS)
            _sched_yield()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGSYS:
        raise NotHeld("the kernel has no SECCOMP_RET_KILL_PROCESS")


def _sched_yield() -> None:
    """Not os.sched_yield: Python 3.11 ignores its failure."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(_SCHED_YIELD)):
        raise OSError(ctypes.get_errno(), "sched_yield")


def _capabilities() -> None:
    for capability in range(64):
        try:
            sys.prctl(sys.PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:  # beyond the kernel's last capability
                raise
            break
    sys.drop_capabilities()
    if sys.effective_capabilities():
        raise NotHeld("capabilities stayed")


def _no_new_privs() -> None:
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    if sys.prctl(sys.PR_GET_NO_NEW_PRIVS) != 1:
        raise NotHeld("the bit did not stay")


def _rlimits() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

    def open_many() -> None:
        for _ in range(16):
            os.open("/", os.O_RDONLY)

    _expect(errno.EMFILE, open_many, "more open files than the limit")
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))


def _file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = os.memfd_create("probe", os.MFD_CLOEXEC)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    _expect(errno.EFBIG, lambda: os.pwrite(fd, b"x", 8192), "writing beyond the file size")


TRIALS: dict[str, Body] = {
    "pid": _pid,
    "mount": _private_mounts,
    "net": _net,
    "ipc": lambda: sys.unshare(sys.CLONE_NEWIPC),
    "uts": _uts,
    "cgroup": lambda: sys.unshare(sys.CLONE_NEWCGROUP),
    "root": _root,
    "proc": _proc,
    "dev": _dev,
    "noexec": _noexec,
    "tmpfs": _tmpfs,
    "memfd_sysctl": _memfd_sysctl,
    "memfd_seal": _memfd_seal,
    "landlock_files": _landlock_files,
    "landlock_exec": _landlock_exec,
    "landlock_scopes": _landlock_scopes,
    "seccomp": _seccomp,
    "notify": listener.attempt,
    "capabilities": _capabilities,
    "no_new_privs": _no_new_privs,
    "kill_tree": _kill_tree,
    "rlimits": _rlimits,
    "file_size": _file_size,
    "idmap": idmap.attempt,
}
