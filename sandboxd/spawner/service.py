"""The main process's loop: obeys the daemon's closed set of messages, keeps the daemon, ends what must end.

Holds privilege and therefore no tenant data: a launch carries ids, a template's digest and numbers. One thread; nothing
in it waits for a tenant or for the daemon. Called by `__main__`.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable

from sandboxd.spawner import children, plans, wire
from sandboxd.spawner.compiler import Compiler
from sandboxd.spawner.mounts import ViewInvalid
from sandboxd.spawner.options import Options
from sandboxd.spawner.outbox import Outbox
from sandboxd.spawner.restarts import EX_CONFIG, Restarts
from sandboxd.spawner.sandboxes import Sandboxes
from sandboxd.spawner.seccomp import FilterInvalid
from sandboxd.spawner.site import Site
from sandboxd.spawner.template import Template

_MAX_OUTGOING = 256
_MAX_STATUS = 200
# Its gRPC reads this when it is loaded. Connections are served by the thread that waits for them and not by one more
# behind it: 0.3 ms less for each Execute of a few messages. A version without that switch says so and goes on.
_DAEMON_ENVIRONMENT = {"GRPC_EXPERIMENTS": "-event_engine_listener"}
_EXIT_SECONDS = 5.0  # between the daemon's closing its connection and its exit


class Service:
    """Everything the main process keeps while it runs."""

    def __init__(self, options: Options, site: Site, log: Callable[[str], None]) -> None:
        self._options = options
        self._site = site
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._compiler = Compiler(options, site, self._selector)
        self._latest: dict[str, plans.Prepared] = {}
        self._sandboxes = Sandboxes(site, options.blank_stock, self._selector, self._send, log)
        self._generation = 0  # of the daemon
        self._daemon: children.Child | None = None
        self._peer: socket.socket | None = None
        self._outbox: Outbox | None = None
        self._restarts = Restarts(time.monotonic)
        self._restart_at: float | None = None
        self._kill_daemon_at: float | None = None
        self._stopping = False
        self._exit_code: int | None = None

    def run(self) -> int:
        """Until told to stop; the exit code. Nothing of ours is alive afterwards."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _noticed)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # `__main__` had it wait
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._on_signals(wake_read))
        self._compiler.begin(lambda templates: self._on_compiled(0, templates), self._on_first_compile_failed)
        try:
            while self._exit_code is None:
                ready = self._selector.select(self._timeout())
                for key, _ in ready:
                    if self._selector.get_map().get(key.fd) is key:  # an earlier callback may have removed it
                        key.data()
                self._on_time()
                if not ready:
                    self._sandboxes.stock.refill()
        finally:
            self._end_everything()
        return self._exit_code

    # --- time and signals

    def _timeout(self) -> float | None:
        stock = self._sandboxes.stock
        if stock.wants_refill:
            return stock.patience_seconds(busy=bool(self._sandboxes.living))
        times = (self._restart_at, self._kill_daemon_at, self._compiler.deadline)
        deadlines = [at for at in times if at is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            self._start_daemon()
        if self._kill_daemon_at is not None and now >= self._kill_daemon_at and self._daemon is not None:
            self._log("the daemon did not end in time; killing it")
            self._kill_daemon_at = None
            signal.pidfd_send_signal(self._daemon.pidfd, signal.SIGKILL)
        if self._compiler.deadline is not None and now >= self._compiler.deadline:
            self._compiler.expire()

    def _on_signals(self, wake: int) -> None:
        for number in os.read(wake, 64):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._drain()
            elif number == signal.SIGHUP and not self._stopping:
                # READY=1 follows when the daemon has taken over what is new, or has not.
                self._site.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
                self._compiler.begin(lambda templates: self._on_compiled(0, templates), self._on_reload_failed)

    def _drain(self) -> None:
        if self._stopping or self._daemon is None:
            self._exit_code = 0  # the second time: at once
            return
        self._stopping = True
        self._site.notify("STOPPING=1")
        grace = self._options.drain_grace_seconds
        self._send(wire.Drain(grace))
        self._kill_daemon_at = time.monotonic() + grace + 5

    # --- templates

    def _on_first_compile_failed(self, message: str) -> None:
        self._log(message)
        self._exit_code = EX_CONFIG

    def _on_reload_failed(self, message: str) -> None:
        self._log(f"profiles stay as they were: {message}")
        self._send(wire.Reloaded(0, self._names()))

    def _on_compiled(self, request_id: int, templates: tuple[Template, ...]) -> None:
        try:
            latest = plans.prepare(templates, self._site.stage, self._latest)
        except (ViewInvalid, FilterInvalid, OSError) as error:
            message = f"a profile cannot be used on this host: {error}"
            if self._never_started:
                self._on_first_compile_failed(message)
            elif request_id:
                self._send(wire.Refused(request_id, "reload_failed", message))
            else:
                self._on_reload_failed(message)
            return
        # The daemon may keep the former profiles, if it cannot take over all that changed: they stay launchable.
        self._sandboxes.replace({**self._latest, **latest})
        self._latest = latest
        if self._never_started:
            self._start_daemon()
        else:
            self._send(wire.Reloaded(request_id, self._names()))

    def _names(self) -> tuple[tuple[str, str], ...]:
        return tuple((p.template.name, digest) for digest, p in self._latest.items())

    # --- the daemon

    @property
    def _never_started(self) -> bool:
        """Between two daemons there is none either, but a time at which the next one starts."""
        return self._daemon is None and self._restart_at is None

    def _start_daemon(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = children.DAEMON_SOCKET_FD
        self._daemon = children.start(
            self._site.stage,
            self._site.daemon,
            ("-m", "sandboxd.daemon", *self._options.daemon_arguments(), "--spawner-fd", str(fd)),
            {**self._options.environment, **_DAEMON_ENVIRONMENT},
            {fd: theirs.fileno()},
            self._options.readable,
        )
        theirs.close()
        ours.setblocking(False)
        self._peer, self._outbox = ours, Outbox(ours, self._undelivered)
        self._restarts.started()
        self._selector.register(ours, selectors.EVENT_READ, self._on_peer)
        self._selector.register(self._daemon.pidfd, selectors.EVENT_READ, self._on_daemon_exit)
        site = self._site
        self._send(wire.Hello(site.mode, site.kernel, site.promise(), self._names(), len(self._sandboxes.living)))
        self._sandboxes.hand_over()

    def _on_daemon_exit(self) -> None:
        daemon = self._daemon
        if daemon is None:
            return
        result = os.waitid(os.P_PIDFD, daemon.pidfd, os.WEXITED)
        self._selector.unregister(daemon.pidfd)
        os.close(daemon.pidfd)
        self._drop_peer()
        self._daemon = None
        self._kill_daemon_at = None
        if self._stopping:
            self._exit_code = 0
        elif result is not None and result.si_code == os.CLD_EXITED:
            self._start_again(result.si_status, f"ended with status {result.si_status}")
        else:
            number = result.si_status if result is not None else signal.SIGKILL
            self._start_again(128 + number, f"was killed by signal {number}")

    def _start_again(self, status: int, how: str) -> None:
        pause = self._restarts.pause_seconds(status)
        if pause is None:
            self._exit_code = status or 1
            self._tell(f"the daemon {how} before it was ready; giving up, its own last words say why")
            return
        self._restart_at = time.monotonic() + pause
        if not pause:
            self._tell(f"the daemon {how}; starting it again")
            return
        self._tell(f"the daemon {how} again; starting it in {pause:g} seconds, nothing runs until then")
        self._sandboxes.kill_all()  # nobody holds them to their limits, and the next daemon would end them

    def _tell(self, message: str) -> None:
        """Whoever reads the log, and who asks the service manager."""
        self._log(message)
        self._site.notify(f"STATUS={_one_line(message)}")

    def _on_peer(self) -> None:
        if self._peer is None or self._outbox is None:
            return
        self._outbox.flush()
        self._listen()
        try:
            message = wire.receive_bare(self._peer)
            if message is not None:
                self._obey(message)
                return
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        except (wire.ProtocolError, OSError) as error:
            self._log(f"the daemon broke the protocol: {error}")
            if self._daemon is not None:
                signal.pidfd_send_signal(self._daemon.pidfd, signal.SIGKILL)
        self._kill_daemon_at = time.monotonic() + _EXIT_SECONDS
        self._drop_peer()

    def _drop_peer(self) -> None:
        """Nothing more is read from this daemon; its pidfd tells when it has ended."""
        if self._peer is not None and self._outbox is not None:
            self._selector.unregister(self._peer)
            self._outbox.clear()
            self._peer.close()
            self._peer = self._outbox = None
        self._generation += 1  # what it asked for and did not get yet, nobody wants; the next one has its own numbers
        self._sandboxes.abandon()

    def _obey(self, message: wire.Message) -> None:
        match message:
            case wire.Launch():
                self._sandboxes.launch(message)
            case wire.Returned():
                self._sandboxes.stock.returned(message.offer)
            case wire.Kill():
                self._sandboxes.kill(message.sandbox_id)
            case wire.Freeze():
                self._sandboxes.freeze(message)
            case wire.Thaw():
                self._sandboxes.thaw(message)
            case wire.Examine():
                self._sandboxes.examine(message)
            case wire.Reload():
                self._reload(message.request_id)
            case wire.Ready():
                self._restarts.ready()
                self._site.notify(f"READY=1\nSTATUS={_one_line(message.status)}")
            case _:
                raise wire.ProtocolError(f"the spawner does not serve {type(message).__name__}")

    def _reload(self, request_id: int) -> None:
        generation = self._generation

        def done(templates: tuple[Template, ...]) -> None:
            self._on_compiled(request_id if generation == self._generation else 0, templates)

        def failed(text: str) -> None:
            if generation == self._generation:
                self._send(wire.Refused(request_id, "reload_failed", text))

        self._compiler.begin(done, failed)

    def _send(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        if self._outbox is not None:
            self._outbox.post(message, fds)
            self._listen()

    def _listen(self) -> None:
        """A daemon that does not read its answers is not asked for more questions."""
        if self._peer is not None and self._outbox is not None:
            reading = selectors.EVENT_READ if len(self._outbox) < _MAX_OUTGOING else 0
            events = reading | (selectors.EVENT_WRITE if self._outbox else 0)
            if self._selector.get_key(self._peer).events != events:
                self._selector.modify(self._peer, events, self._on_peer)

    def _undelivered(self, message: wire.Message, error: OSError) -> None:
        """Its descriptors cannot be sent: with one uid for all, a program can use up how many may be under way."""
        self._log(f"{type(message).__name__} cannot be sent: {error}")
        if isinstance(message, wire.Launched):
            self._sandboxes.kill(message.sandbox_id)
            self._send(wire.Refused(message.request_id, "launch_failed", str(error)))
        elif isinstance(message, wire.Examined):
            self._send(wire.Refused(message.request_id, "examine_failed", str(error)))
        elif isinstance(message, wire.Offered):
            self._sandboxes.stock.undelivered(message.offer)
        elif self._daemon is not None:
            signal.pidfd_send_signal(self._daemon.pidfd, signal.SIGKILL)  # it would wait for ever

    def _end_everything(self) -> None:
        if self._daemon is not None:
            signal.pidfd_send_signal(self._daemon.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._daemon.pidfd, os.WEXITED)
        self._compiler.close()
        self._sandboxes.close()
        self._site.tree.close()


def _one_line(status: str) -> str:
    """A daemon that was taken over must not speak for us: with a second line it could name a main process to kill."""
    return "".join(character if " " <= character <= "~" else "?" for character in status[:_MAX_STATUS])


def _noticed(number: int, frame: object) -> None:
    """The wake-up descriptor has told already; without a handler Python would not write to it."""
