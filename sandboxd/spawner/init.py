"""PID 1 of a sandbox: reaps, starts executions, serves the file API, watches the limits that only it can see.

Forked from the spawner, it runs inside the sandbox with capabilities over nothing but the sandbox's own user namespace.
It must never run tenant data, import (its interpreter's files are not in the sandbox) or block on the tenant.
Talks to the daemon alone; dies with the spawner.
"""

import errno
import gc
import os
import resource
import select
import signal
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from sandboxd.spawner import files, landlock, mounts, payload, plans, rehearsal, sys, wire
from sandboxd.spawner.halt import Halted
from sandboxd.spawner.ids import PAYLOAD_UID
from sandboxd.spawner.mediation import Server
from sandboxd.spawner.plans import Prepared, Shape
from sandboxd.spawner.watch import LimitWatch

_WATCH_SECONDS = 0.05
_ASLEEP_SECONDS = 0.5  # a look that comes so late: we were frozen meanwhile, or had no CPU
_CHILDREN = "/proc/1/task/1/children"
_LISTED_BYTES = 4096
_LONGEST_PID = len("4194304 ")
# Two cannot be set, two Python needs ignored in init itself; a payload resets those.
_NOT_RESET = frozenset((signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ))


@dataclass(slots=True)
class _Execution:
    execution_id: str
    sock: socket.socket | None  # to the child, until execve happened or failed
    watch: LimitWatch


def forget_the_spawner() -> None:
    """First in the new process: no signal handler, wake-up descriptor or environment of the spawner's is left."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - _NOT_RESET:  # also what our starter ignored: a program expects defaults
        signal.signal(number, signal.SIG_DFL)
    sys.default_the_signals_of_libc()
    sys.unblock_every_signal()
    os.environ.clear()
    gc.disable()  # a collector run would copy pages that are shared with the spawner


@dataclass(frozen=True, slots=True)
class Cage:
    """What every execution of this sandbox is put into. `prepared` are the templates that it may be assigned."""

    shape: Shape
    prepared: Mapping[str, Prepared]
    room: mounts.Room
    bonds: payload.Bonds

    def uid(self, slot: int) -> int:
        return PAYLOAD_UID + (0 if self.bonds.single_id else slot)

    def arm(self, slot: int) -> payload.Armed:
        return payload.arm(slot, self.bonds)


def furnish(likely: Prepared, prepared: Mapping[str, Prepared], *, single_id: bool) -> Cage:
    """Everything of its shape, in the new namespaces: the view becomes this process's root."""
    shape, room = likely.shape, likely.room
    mounts.enter_view(shape.view, shape.proc, PAYLOAD_UID, room, executable_workspace=shape.workspace_executable)
    sys.sethostname(shape.hostname)
    abi = landlock.abi()
    ruleset_fd = landlock.build(abi, shape.landlock, shape.landlock_scopes) if abi else None
    alike = {digest: other for digest, other in prepared.items() if other.shape == shape}
    bonds = payload.Bonds(ruleset_fd, likely.filter, shape.seccomp_first, single_id, shape.mediation.listens)
    return Cage(shape, alike, room, bonds)


class Init:
    """Made at its birth, before it is known for whom; `_control` comes with the assignment."""

    _control: socket.socket
    _assigned: wire.Assign

    def __init__(self, cage: Cage, armed: payload.Armed) -> None:
        self._cage = cage
        self._armed: payload.Armed | None = armed
        self._executions: dict[int, _Execution] = {}  # by pid of the main process
        self._mediation: Server | None = None  # where the profile wants calls asked about
        self._keepers: set[int] = set()  # of the memory that programs let go of
        self._halted: Halted | None = None
        self._look_at = 0.0  # when limits are looked at next, while a program runs
        self._poll = select.poll()
        self._children = _open_children()
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pipes = os.fstat(self._wake).st_dev  # of all pipes of this kernel that have no name
        self._poll.register(self._wake, select.POLLIN)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noticed)

    def rehearse(self) -> None:
        """What a request will do here, without consequence."""
        rehearsal.rehearse(rehearsal.OF_INIT)
        sample = rehearsal.EXECUTE
        LimitWatch(sample.open_files, sample.file_size_bytes).finish()
        self._poll.poll(0)
        self._reap()

    def run(self, spawner: socket.socket) -> NoReturn:
        """Wait to be assigned, add what the launch says, serve until killed."""
        received = wire.receive(spawner)
        if received is None:
            os._exit(0)
        assign, fds = received
        if not isinstance(assign, wire.Assign) or len(fds) != 1 or assign.template not in self._cage.prepared:
            raise wire.ProtocolError("expected Assign")
        self._control = socket.socket(fileno=fds[0])
        self._assigned = assign
        room = mounts.Room(assign.workspace_bytes, assign.workspace_inodes, assign.tmp_bytes, assign.tmp_inodes)
        try:
            if room != self._cage.room:
                mounts.give_room(room, executable_workspace=self._cage.shape.workspace_executable)
        except OSError as error:
            self._answer(0, error)
            raise
        spawner.close()
        if self._cage.shape.mediation.listens:
            self._mediation = Server(self._cage.shape.mediation, self._control, self._send, self._poll)
        self._poll.register(self._control, select.POLLIN)
        self._obey()  # until then there is nothing to look after
        self._serve()

    def _serve(self) -> NoReturn:
        while True:
            timeout = max(0.0, self._look_at - time.monotonic()) * 1000 if self._executions else None
            ready = dict(self._poll.poll(timeout))
            if self._executions and time.monotonic() >= self._look_at:  # in a storm of orphans too
                self._look()
            for pid, execution in list(self._executions.items()):
                if execution.sock is not None and execution.sock.fileno() in ready:
                    self._report_start(pid, execution)
            if self._mediation is not None:
                self._mediation.serve(ready)
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._control.fileno() in ready:
                self._obey()

    def _look(self) -> None:
        now = time.monotonic()
        late, self._look_at = now - self._look_at, now + _WATCH_SECONDS
        self._dismiss_keepers()
        if self._halted is not None and self._halted.evaded():
            self._halted = None
            self._kill_all()
            return
        if self._mediation is not None:
            if self._halted is not None or late >= _ASLEEP_SECONDS:
                self._mediation.postpone(late + _WATCH_SECONDS)
            self._mediation.tick()
        for pid, execution in self._executions.items():
            execution.watch.sample(pid)

    def _obey(self) -> None:
        received = wire.receive_encoded(self._control)
        if received is None:
            os._exit(0)
        message, encoded, fds = received
        try:
            match message:
                case wire.Execute():
                    self._execute(message, encoded, fds)
                case wire.Put():
                    self._put(message, fds)
                case wire.Collect():
                    self._collect(message)
                case wire.Signal():
                    self._signal(message)
                case wire.Answered() if self._mediation is not None:
                    self._mediation.answered(message)
                case wire.Stop():
                    self._stop(message)
                case wire.Halt():
                    self._halt(message)
                case wire.Resume():
                    self._resume(message)
                case _:
                    raise wire.ProtocolError(f"init does not serve {type(message).__name__}")
        finally:
            wire.close_all(fds)

    def _execute(self, plan: wire.Execute, encoded: bytes, fds: list[int]) -> None:
        if len(fds) != 3:
            raise wire.ProtocolError("Execute needs three descriptors")
        template = self._cage.prepared[self._assigned.template].template
        objection = plans.objection(plan, template, self._assigned) or self._no_pipe(fds)
        if objection:
            self._send(wire.ExecFailed(plan.execution_id, "plan", errno.EINVAL, objection))
            return
        try:
            child = self._child_for(plan.slot)
        except OSError as error:  # for want of pids or memory
            self._send(wire.ExecFailed(plan.execution_id, "arm", error.errno or errno.EIO, str(error)))
            return
        try:
            payload.release(child, encoded, fds)
        except OSError as error:  # it died waiting; `_reap` buries it
            words = payload.last_words(child.sock)
            child.close()
            why = payload.failure(words) if words else ("release", error.errno or errno.EIO, str(error))
            self._send(wire.ExecFailed(plan.execution_id, *why))
            return
        if self._mediation is not None and child.listener >= 0:
            self._mediation.watch(child.listener, plan.execution_id, child.pid, child.sock)
        self._dismiss_keepers()  # those of programs that were over before the next look
        self._keepers.add(child.keeper)
        if not self._executions:  # else the next look is due when it was: it would never come if many follow each other
            self._look_at = time.monotonic() + _WATCH_SECONDS
        self._poll.register(child.sock, select.POLLIN)
        self._executions[child.pid] = _Execution(
            plan.execution_id, child.sock, LimitWatch(plan.open_files, plan.file_size_bytes)
        )

    def _child_for(self, slot: int) -> payload.Armed:
        if self._armed is None or self._armed.slot != slot:
            return self._cage.arm(slot)
        child, self._armed = self._armed, None
        return child

    def _no_pipe(self, fds: list[int]) -> str:
        """A daemon that was taken over must not lead the program to the host by a directory, file or socket of its own.

        Nor by a named pipe, whose owner the program might be.
        """
        for name, fd in zip(("stdin", "stdout", "stderr"), fds, strict=True):
            status = os.fstat(fd)
            if status.st_dev != self._pipes or not stat.S_ISFIFO(status.st_mode):
                return f"{name} has mode {status.st_mode:#o} and is not a pipe"
        return ""

    def _report_start(self, pid: int, execution: _Execution) -> None:
        """Once: the child's socket was closed by execve, or says which step failed."""
        if execution.sock is None:
            return
        answer = payload.last_words(execution.sock)
        self._poll.unregister(execution.sock)
        execution.sock.close()
        execution.sock = None
        if answer:
            self._send(wire.ExecFailed(execution.execution_id, *payload.failure(answer)))
        else:
            self._send(wire.Started(execution.execution_id, pid))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._armed is not None and pid in (self._armed.pid, self._armed.keeper):  # nor is one of use alone
                self._armed.close()
                self._armed = None
            self._keepers.discard(pid)
            execution = self._executions.pop(pid, None)
            if execution is not None:
                self._report_end(pid, execution, status, usage)

    def _report_end(self, pid: int, execution: _Execution, status: int, usage: resource.struct_rusage) -> None:
        """The daemon may believe that nothing of it runs any more, and that its streams have seen their last byte."""
        self._report_start(pid, execution)
        if not self._executions and not self._is_alone():
            self._kill_all()
        if self._mediation is not None:
            self._mediation.finish(execution.execution_id)
        self._send(
            wire.Exited(
                execution.execution_id,
                status,
                usage.ru_utime,
                usage.ru_stime,
                usage.ru_maxrss * 1024,
                execution.watch.finish(),
            )
        )

    def _put(self, message: wire.Put, fds: list[int]) -> None:
        if len(fds) != 1 or not plans.is_slot(message.slot):
            raise wire.ProtocolError("Put needs one descriptor and a slot")
        try:
            files.put(message.path, message.mode, fds[0], self._cage.uid(message.slot))
        except OSError as error:
            self._answer(message.request_id, error)
        else:
            self._answer(message.request_id, None)

    def _collect(self, message: wire.Collect) -> None:
        if not plans.is_slot(message.slot):
            raise wire.ProtocolError("Collect needs a slot")
        try:
            found = files.collect(message.patterns, message.max_files, message.max_bytes, self._cage.uid(message.slot))
        except OSError as error:
            self._answer(message.request_id, error)
            return
        for opened in found.opened:
            wire.send(
                self._control,
                wire.FileOpened(message.request_id, opened.path, opened.size, opened.mode),
                (opened.fd,),
            )
            os.close(opened.fd)
        text = "limit_reached" if found.limit_reached else ""
        self._send(wire.Answer(message.request_id, 0, text, tuple(found.skipped)))

    def _signal(self, message: wire.Signal) -> None:
        if not 0 < message.signum < signal.NSIG:
            raise wire.ProtocolError(f"no signal {message.signum}")
        for pid, execution in self._executions.items():
            if execution.execution_id == message.execution_id:
                try:
                    os.killpg(pid, message.signum)  # setsid made the main process's pid its group
                except ProcessLookupError:
                    os.kill(pid, message.signum)  # forked, but not yet past setsid

    def _stop(self, message: wire.Stop) -> None:
        self._kill_all()
        self._reap()
        self._answer(message.request_id, None)

    def _halt(self, message: wire.Halt) -> None:
        self._dismiss_keepers()  # now: one that died later would look as if it had gone on
        try:
            self._halted = self._halted or Halted()
        except OSError as error:
            self._answer(message.request_id, error)
        else:
            self._answer(message.request_id, None)

    def _resume(self, message: wire.Resume) -> None:
        if self._halted is not None:
            self._halted.release()
            self._halted = None
        self._answer(message.request_id, None)

    def _is_alone(self) -> bool:
        """Whether nothing lives here but init and keepers, which leave no trace and go with the sandbox.

        Whatever else lives is the child of a child, living or not yet buried by us, and so cannot be missed here.
        """
        if self._children < 0:
            return False
        try:
            listed = os.pread(self._children, _LISTED_BYTES, 0)
        except OSError:  # no memory for the kernel's own copy: what it would say does not end the sandbox
            return False
        # The kernel gives whole numbers only, so one that had no room may stand behind a list that is not quite full.
        whole = len(listed) <= _LISTED_BYTES - _LONGEST_PID
        return whole and self._keepers.issuperset(map(int, listed.split()))

    def _dismiss_keepers(self) -> None:
        """Their end is work too; it comes late enough not to hold up a short program or its answer."""
        for keeper in self._keepers:
            os.kill(keeper, signal.SIGKILL)

    def _kill_all(self) -> None:
        """kill(-1) reaches whatever is in the pid namespace but us; repeated, since a fork may be under way."""
        while True:
            try:
                os.kill(-1, signal.SIGKILL)
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except (ProcessLookupError, ChildProcessError):
                return
            self._reap()

    def _answer(self, request_id: int, error: OSError | None) -> None:
        if error is None:
            self._send(wire.Answer(request_id, 0, "", ()))
        else:
            self._send(wire.Answer(request_id, error.errno or errno.EIO, str(error), ()))

    def _send(self, message: wire.Message) -> None:
        wire.send(self._control, message)


def _open_children() -> int:
    """The list of init's own children, open once for every end; -1 without a proc or CONFIG_PROC_CHILDREN."""
    try:
        return os.open(_CHILDREN, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _noticed(number: int, frame: object) -> None:
    """The wake-up descriptor has told already; without a handler Python would not write to it."""
