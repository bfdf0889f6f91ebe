"""Init's part in mediation: receives the calls that a profile wants asked about or reported, and has them answered.

Never waits for the daemon or for a tenant: what cannot be asked now is refused, what is asked has a deadline, and of
what comes too fast the rest stays in the kernel. An allowed execve(2) goes on with CONTINUE, so the kernel reads its
arguments anew and a program with two threads can become another image than was asked about: what may run at all is for
noexec mounts, Landlock and memfd_noexec to say, which read no memory. Called by `init`.
"""

import errno
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sandboxd.spawner import sys, wire
from sandboxd.spawner.caller import Caller, Process, Unreadable, process_of
from sandboxd.spawner.listener import Listener, Notification
from sandboxd.spawner.template import Mediation

MOST_ASKED = 64
EXECS_PER_SECOND = 200
BURST = 400
DEADLINE_SECONDS = 10.0
WINDOW_SECONDS = 1.0  # in which equal refusals are told of once, and the rest as a number
_LARGEST_ERRNO = 4095


@dataclass(slots=True)
class _Watched:
    """The programs of one execution: all that came from its first one have one filter, and so one listener."""

    listener: Listener
    execution_id: str
    child: int
    sock: socket.socket
    paused: bool = False

    def is_still_ours(self, notification: Notification) -> bool:
        """Whether it is init's own child that calls, on its way to the program which was decided before it was sent.

        Its socket is closed by the execve that works, before the program's first instruction; until then it is one
        thread of our own code, and nobody else can write to its memory. So there is no race, and nothing to read: its
        memory belongs to the host's user namespace.
        """
        if notification.thread != self.child or self.sock.fileno() < 0:
            return False
        try:
            self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


@dataclass(frozen=True, slots=True)
class _Asked:
    watched: _Watched
    notification: Notification
    until: float


@dataclass(slots=True)
class _Window:
    """Refusals of one kind that were not told of yet."""

    until: float
    pid: int
    count: int = 0


_Kind = tuple[str, int, int, str]  # execution, the call's number, errno, reason


@dataclass(slots=True)
class Server:
    """`control` leads to the daemon; `send` must not be called unless it takes a message now."""

    rules: Mediation
    control: socket.socket
    send: Callable[[wire.Message], None]
    poll: select.poll
    clock: Callable[[], float] = time.monotonic
    _reported: Mapping[int, int] = field(init=False)  # with what each fails
    _watched: dict[int, _Watched] = field(default_factory=dict)  # by descriptor
    _asked: dict[int, _Asked] = field(default_factory=dict)  # by request
    _windows: dict[_Kind, _Window] = field(default_factory=dict)
    _next: int = 1
    _allowance: float = BURST
    _filled_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._reported = dict(self.rules.reported)
        self._filled_at = self.clock()

    def watch(self, listener: int, execution_id: str, child: int, sock: socket.socket) -> None:
        """From before the child is released. The descriptor is taken over; the socket is only looked at."""
        self._watched[listener] = _Watched(Listener(listener), execution_id, child, sock)
        self.poll.register(listener, select.POLLIN)

    def serve(self, ready: Mapping[int, int]) -> None:
        """One call of each listener, so that one program holds up neither the others nor init's own work."""
        for fd, watched in list(self._watched.items()):
            events = ready.get(fd, 0)
            if events & select.POLLIN and not watched.paused:
                self._receive(watched)
            elif events & (select.POLLHUP | select.POLLERR):
                self._forget(watched)

    def postpone(self, seconds: float) -> None:
        """For so long nobody could answer: the sandbox was frozen."""
        self._asked = {request: replace(asked, until=asked.until + seconds) for request, asked in self._asked.items()}

    def tick(self) -> None:
        """Now and then while programs run."""
        now = self.clock()
        self._allowance = min(BURST, self._allowance + (now - self._filled_at) * EXECS_PER_SECOND)
        self._filled_at = now
        for request, asked in list(self._asked.items()):
            if not asked.watched.listener.is_pending(asked.notification.key):
                del self._asked[request]  # it was killed meanwhile
            elif now >= asked.until:
                del self._asked[request]
                self._refuse(asked.watched, asked.notification, errno.EACCES, "late")
        for kind, window in list(self._windows.items()):
            if now >= window.until:
                self._close_window(kind, window, now)
        self._resume()

    def answered(self, message: wire.Answered) -> None:
        """`wire.ProtocolError` for an answer that no call can have."""
        if not 0 <= message.errno <= _LARGEST_ERRNO:
            raise wire.ProtocolError(f"{message.errno} is no errno")
        asked = self._asked.pop(message.request_id, None)
        if asked is None:
            return  # too late, or its process has gone
        listener, key = asked.watched.listener, asked.notification.key
        if message.errno:
            listener.refuse(key, message.errno)
        else:
            listener.let(key)
        self._resume()

    def finish(self, execution_id: str) -> None:
        """Tell what is left to tell of an execution that is over."""
        for kind in [kind for kind in self._windows if kind[0] == execution_id]:
            window = self._windows.pop(kind)
            if window.count:
                self._tell(kind, window.pid, window.count)

    # --- one call

    def _receive(self, watched: _Watched) -> None:
        if self._is_full():
            self._pause(watched)
            return
        notification = watched.listener.receive()
        if notification is None:
            return
        if not notification.is_native or notification.thread <= 0:
            self._refuse(watched, notification, errno.EPERM, "foreign")
        elif notification.number in self._reported:
            self._refuse(watched, notification, self._reported[notification.number], "profile")
        elif not self.rules.exec or notification.number not in (sys.EXECVE, sys.EXECVEAT):
            self._refuse(watched, notification, errno.EPERM, "profile")
        elif notification.number == sys.EXECVE and watched.is_still_ours(notification):
            watched.listener.let(notification.key)
        else:
            self._ask(watched, notification)

    def _ask(self, watched: _Watched, notification: Notification) -> None:
        self._allowance -= 1
        try:
            caller: Caller | Unreadable = self._read(watched, notification)
        except Unreadable as error:
            caller = error
        if not watched.listener.is_pending(notification.key):
            return  # it was killed: whatever was read, or could not be, may be another's
        if isinstance(caller, Unreadable):
            self._refuse(watched, notification, caller.number, caller.reason)
            return
        if not self._takes_a_message():
            self._refuse(watched, notification, errno.EACCES, "daemon_busy")
            return
        request, self._next = self._next, self._next + 1
        who = (watched.execution_id, caller.pid, caller.parent_pid)
        try:
            self.send(wire.Asked(request, *who, caller.image, caller.argv, caller.cwd))
        except OSError:  # a long list of arguments goes as a descriptor, of which the user may have too many under way
            self._refuse(watched, notification, errno.EACCES, "daemon_busy")
        else:
            self._asked[request] = _Asked(watched, notification, self.clock() + DEADLINE_SECONDS)

    def _read(self, watched: _Watched, notification: Notification) -> Caller:
        """The memory is opened first: if the call still waits after that, it is the caller's, and stays so."""
        process = Process(notification.thread)
        try:
            if not watched.listener.is_pending(notification.key):
                raise Unreadable(errno.ESRCH)
            return process.reads(notification)
        finally:
            process.close()

    def _refuse(self, watched: _Watched, notification: Notification, number: int, reason: str) -> None:
        """`reason` is empty for what is not told of: a place where nothing is."""
        pid = process_of(notification.thread) if reason else 0  # while it waits, and is there
        watched.listener.refuse(notification.key, number)
        if not reason:
            return
        kind = (watched.execution_id, notification.number, number, reason)
        window = self._windows.get(kind)
        if window is not None:
            window.count += 1
            window.pid = pid
            return
        until = self.clock() + WINDOW_SECONDS
        if self._takes_a_message():
            self._windows[kind] = _Window(until, pid)
            self._tell(kind, pid, 1)
        else:
            self._windows[kind] = _Window(until, pid, 1)

    # --- how much at once

    def _is_full(self) -> bool:
        return len(self._asked) >= MOST_ASKED or self._allowance < 1

    def _pause(self, watched: _Watched) -> None:
        watched.paused = True
        self.poll.modify(watched.listener.fd, 0)

    def _resume(self) -> None:
        if self._is_full():
            return
        for watched in self._watched.values():
            if watched.paused:
                watched.paused = False
                self.poll.modify(watched.listener.fd, select.POLLIN)

    def _forget(self, watched: _Watched) -> None:
        """Nobody has that filter any more."""
        self.poll.unregister(watched.listener.fd)
        del self._watched[watched.listener.fd]
        self._asked = {request: asked for request, asked in self._asked.items() if asked.watched is not watched}
        watched.listener.close()

    # --- to the daemon

    def _close_window(self, kind: _Kind, window: _Window, now: float) -> None:
        if not window.count:
            del self._windows[kind]
        elif self._takes_a_message():
            self._tell(kind, window.pid, window.count)
            window.count, window.until = 0, now + WINDOW_SECONDS

    def _tell(self, kind: _Kind, pid: int, count: int) -> None:
        execution_id, number, refusal, reason = kind
        self.send(wire.CallRefused(execution_id, number, pid, refusal, reason, count))

    def _takes_a_message(self) -> bool:
        """With more than three quarters of its buffer free a packet of the largest size fits."""
        room = select.poll()
        room.register(self.control, select.POLLOUT)
        return any(events & select.POLLOUT for _, events in room.poll(0))
