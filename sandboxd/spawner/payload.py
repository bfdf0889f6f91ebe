"""From a fork of init to a tenant's program, each step with its reason.

A fork costs more than all its steps, so init keeps one *armed*: forked, stripped of id and capabilities, waiting for a
plan. Nothing after `execve` is ours. A step that fails ends the child: a program never runs with less than the template
says. Called by `init`.
"""

import errno
import os
import resource
import select
import signal
import socket
from dataclasses import dataclass
from typing import NoReturn

from sandboxd.spawner import rehearsal, sys, wire
from sandboxd.spawner.ids import PAYLOAD_UID
from sandboxd.spawner.seccomp import Filter
from sandboxd.spawner.wire import Execute

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_SOCKET_FD = 3
_LAST_FD = 0x7FFFFFFF
_ADDRESS_SPACE_FACTOR = 8
_HAND_OVER_SECONDS = 20.0  # that only a helper which the kernel killed ever takes
_ALWAYS = (
    (resource.RLIMIT_CORE, 1),  # at 1 the kernel skips a core_pattern pipe handler, at 0 it does not
    (resource.RLIMIT_MEMLOCK, 65536),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_NICE, 0),
    (resource.RLIMIT_RTPRIO, 0),
    (resource.RLIMIT_SIGPENDING, 4096),  # timers and queued signals: where all have one uid, they share its number
)


@dataclass(frozen=True, slots=True)
class Armed:
    """A child that waits. Its socket takes the plan, then tells how it went: nothing but its end if it execs."""

    pid: int
    slot: int
    sock: socket.socket
    keeper: int  # of its memory
    listener: int = -1  # where its calls are asked about, if they are

    def close(self) -> None:
        """Nothing is left to be done with it: it died waiting."""
        self.sock.close()
        if self.listener >= 0:
            os.close(self.listener)


@dataclass(frozen=True, slots=True)
class Bonds:
    """What every program of a sandbox is put under."""

    ruleset_fd: int | None  # None: this kernel has no Landlock, and the report says so
    filter: Filter
    filter_first: bool  # it lets through what is still to do, so it need not wait for the plan
    single_id: bool
    listens: bool = False  # the filter asks: init gets the listener. Only with `filter_first`


def arm(slot: int, bonds: Bonds) -> Armed:
    """Fork a child that has given up everything it can without knowing the program.

    Returns when it waits; OSError if it failed.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            ours.detach()
            _become(theirs, PAYLOAD_UID + (0 if bonds.single_id else slot), bonds)
        finally:
            os._exit(NOT_FOUND)  # whatever happened: never back into init's own code
    theirs.close()
    told, listener = _introduction(ours, bonds) if bonds.listens else (ours.recv(2048), -1)
    armed = Armed(pid, slot, ours, int(told) if told.isdigit() else 0, listener)
    if not armed.keeper:
        armed.close()
        raise OSError(errno.ECHILD, "the armed child died" if not told else " ".join(map(str, failure(told))))
    return armed


def _introduction(ours: socket.socket, bonds: Bonds) -> tuple[bytes, int]:
    """What the child says, and the listener that its helper hands over, in whichever order they come."""
    told, listener = b"", -1
    ours.settimeout(_HAND_OVER_SECONDS)
    while not told or (told.isdigit() and listener < 0):
        said, fds, _, _ = socket.recv_fds(ours, 2048, 1)
        if fds:
            (listener,) = fds
            os.set_inheritable(listener, False)
            os.waitpid(int(said), 0)  # it has the child's socket too, whose end must tell of the execve and no later
        elif said:
            told = said
        else:
            break
    ours.settimeout(None)
    return told, listener


def release(armed: Armed, plan: bytes, stdio: list[int]) -> None:
    """Let it become the program of an encoded Execute."""
    wire.send_encoded(armed.sock, plan, stdio)


def last_words(sock: socket.socket) -> bytes:
    """What an armed child sent instead of becoming the program, as `failure` reads it; empty if it sent nothing."""
    try:
        return sock.recv(2048, socket.MSG_DONTWAIT)
    except BlockingIOError:  # it lives
        return b""
    except ConnectionResetError:  # it died before it had read all; the kernel tells this first and its words then
        return sock.recv(2048) or f"plan\0{errno.ECONNRESET}\0it died waiting".encode()


def failure(answer: bytes) -> tuple[str, int, str]:
    """Step, errno and detail from what an armed child sent instead of becoming the program."""
    step, number, detail = answer.decode(errors="replace").split("\0", 2)
    return step, int(number), detail


def limit_for_good() -> None:
    """What is the same for every program of every profile; init takes it on itself once, at its birth."""
    os.umask(0o022)
    for kind, value in _ALWAYS:
        _limit(kind, value, value)


def _become(sock: socket.socket, uid: int, bonds: Bonds) -> NoReturn:
    step = "no_new_privs"
    try:
        signal.set_wakeup_fd(-1)
        sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
        step = "landlock"
        if bonds.ruleset_fd is not None:
            sys.landlock_restrict_self(bonds.ruleset_fd)
        step = "descriptors"
        os.dup2(sock.fileno(), _SOCKET_FD, inheritable=False)
        sys.close_range(_SOCKET_FD + 1, _LAST_FD)
        sock.detach()
        step = "keep_memory"
        sock, keeper = _with_kept_memory(socket.socket(fileno=_SOCKET_FD))
        step = "setsid"
        os.setsid()  # no controlling terminal to push input into (TIOCSTI), and a group of its own to signal
        step = "setresuid"
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        step = "capset"  # with one id for all there was no change of uid that would have dropped them
        sys.drop_capabilities()
        step = "sched_setscheduler"
        if os.sched_getscheduler(0) == os.SCHED_BATCH:  # init's, see `blank`; what the operator chose stays
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        step = "signals"
        _reset_signals()
        step = "rehearsal"
        _rlimits(rehearsal.EXECUTE)
        rehearsal.rehearse((rehearsal.EXECUTE,))
        if bonds.listens:
            step = "seccomp"
            _filter_with_listener(sock, bonds)
        elif bonds.filter_first:
            step = "seccomp"
            sys.seccomp_set_filter(bonds.filter.program)
        sock.send(str(keeper).encode())
        step = "plan"
        received = wire.receive(sock)
        if received is None:
            os._exit(0)
        plan, fds = received
        if not isinstance(plan, Execute) or len(fds) != 3:
            raise OSError(errno.EPROTO, "expected Execute with three descriptors")
        step = "dup2"
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        sys.close_range(_SOCKET_FD + 1, _LAST_FD)
        step = "setrlimit"
        for kind, soft, hard in _rlimits(plan):
            _limit(kind, soft, hard)
        step = "chdir"
        os.chdir(plan.cwd)
        if not bonds.filter_first:
            step = "seccomp"  # last, so that the steps above need no place in the profile's list
            sys.seccomp_set_filter(bonds.filter.program)
    except (OSError, ValueError, OverflowError, MemoryError, wire.ProtocolError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
        sock.send(f"{step}\0{number}\0{error}".encode()[:1024])
        os._exit(NOT_FOUND)
    _exec(plan)


def _with_kept_memory(sock: socket.socket) -> tuple[socket.socket, int]:
    """The socket again, and the keeper's pid.

    Taking this interpreter's memory apart took 1.6 ms of the 2 of an execve: the keeper leaves that to its own end. It
    must not hold the socket, whose end tells init of the execve: meanwhile that is on its way in another one.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"s"], [sock.fileno()])
        sock.close()
        keeper = sys.keep_memory()
        _, (fd,), _, _ = socket.recv_fds(theirs, 1, 1)
        os.set_inheritable(fd, False)  # recv_fds leaves out the flags it is given
    if fd != _SOCKET_FD:
        raise OSError(errno.EBADF, f"the socket came back as descriptor {fd}")
    return socket.socket(fileno=fd), keeper


def _filter_with_listener(sock: socket.socket, bonds: Bonds) -> None:
    """The filter, whose listener goes to init by a helper without one: to hand it over ourselves is a system call that
    a profile need not allow. Afterwards the helper is gone, and its copy of the listener with it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    myself = os.pidfd_open(os.getpid())
    if sys.fork_with_descriptors() == 0:
        try:
            poll = select.poll()
            poll.register(read, select.POLLIN)
            poll.register(myself, select.POLLIN)
            if any(fd == read for fd, _ in poll.poll()):
                socket.send_fds(sock, [str(os.getpid()).encode()], [int(os.read(read, 16))])
        finally:
            os._exit(0)
    os.write(write, str(sys.seccomp_listen(bonds.filter.program)).encode())


def _rlimits(plan: Execute) -> list[tuple[int, int, int]]:
    cpu = max(1, int(plan.cpu_seconds) + (plan.cpu_seconds % 1 > 0))
    limits = [
        (resource.RLIMIT_NOFILE, plan.open_files, plan.open_files),
        (resource.RLIMIT_FSIZE, plan.file_size_bytes, plan.file_size_bytes),
        (resource.RLIMIT_CPU, cpu, cpu + 1),
    ]
    if plan.memory_bytes:
        # What is written counts; address space is reserved far beyond it by threads and by JIT compilers.
        address_space = _ADDRESS_SPACE_FACTOR * plan.memory_bytes
        limits.append((resource.RLIMIT_DATA, plan.memory_bytes, plan.memory_bytes))
        limits.append((resource.RLIMIT_AS, address_space, address_space))
    if plan.pids:
        limits.append((resource.RLIMIT_NPROC, plan.pids, plan.pids))
    return limits


def _limit(kind: int, soft: int, hard: int) -> None:
    """A surrounding limit that is tighter already stays."""
    _, ceiling = resource.getrlimit(kind)
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def _reset_signals() -> None:
    """Python ignores SIGPIPE and SIGXFSZ, init wants to be woken by SIGCHLD; a program expects the defaults."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _exec(plan: Execute) -> NoReturn:
    name = plan.argv[0]
    environment = dict(plan.env)
    search = environment.get("PATH", "").split(":")
    candidates = [name] if "/" in name else [f"{directory}/{name}" for directory in search if directory and name]
    refusal = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for candidate in candidates:
        try:
            os.execve(candidate, plan.argv, environment)
        except OSError as error:
            # As execvp(3): a match that may not be executed is remembered, a missing one is passed over.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                refusal = error
        except ValueError as error:
            refusal = OSError(errno.EINVAL, str(error))
    text = f"sandboxd: cannot run {name!r}: {refusal.strerror}\n"
    os.write(2, text.encode(errors="backslashreplace"))
    os._exit(NOT_FOUND if refusal.errno == errno.ENOENT else NOT_EXECUTABLE)
