"""Runs the profile compiler as a short-lived child, unprivileged, and reads its templates from a pipe.

The daemon has no part in it, so a daemon that was taken over cannot widen a template. Never waits for the child: it is
killed when it prints too much or takes too long. Called by `service`.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from sandboxd.spawner import children, template
from sandboxd.spawner.options import Options
from sandboxd.spawner.site import Site

_MAX_OUTPUT = 64 * 1024 * 1024
_MAX_WAITING = 64
_SECONDS = 300.0  # it takes two on an idle node, over sixty on an emulated one

Done = Callable[[tuple[template.Template, ...]], None]
Failed = Callable[[str], None]


class Compiler:
    """One run at a time; a request during a run starts another one after it, for the files may have changed."""

    def __init__(self, options: Options, site: Site, selector: selectors.BaseSelector) -> None:
        self._options = options
        self._site = site
        self._selector = selector
        self._child: children.Child | None = None
        self._pipe = -1
        self._output = bytearray()
        self._complaint = ""
        self._callbacks: list[tuple[Done, Failed]] = []
        self._later: list[tuple[Done, Failed]] = []
        self.deadline: float | None = None  # on the monotonic clock, for `expire`

    def begin(self, done: Done, failed: Failed) -> None:
        if self._child is None:
            self._callbacks = [(done, failed)]
            self._start()
        elif len(self._later) < _MAX_WAITING:
            self._later.append((done, failed))
        else:
            failed("too many reloads wait already; try again")

    def expire(self) -> None:
        """To be called when `deadline` has passed."""
        self._stop(f"the profile compiler took longer than {_SECONDS:.0f} s")

    def close(self) -> None:
        if self._child is not None:
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._child.pidfd, os.WEXITED)

    def _start(self) -> None:
        self._output = bytearray()
        self._complaint = ""
        self.deadline = time.monotonic() + _SECONDS
        read, write = os.pipe2(os.O_CLOEXEC)
        self._child = children.start(
            self._site.stage,
            self._site.compiler,
            (
                "-m",
                "sandboxd.profile.compile",
                "--memfd",
                self._site.memfd,
                # what belongs to the daemon must come into no sandbox, whatever a profile says
                "--protect",
                str(self._options.state_dir),
                "--protect",
                str(self._options.runtime_dir),
                *(str(path) for path in self._options.profile_paths),
            ),
            self._options.environment,
            {1: write},
            self._options.profile_paths,
        )
        os.close(write)
        os.set_blocking(read, False)
        self._pipe = read
        self._selector.register(read, selectors.EVENT_READ, self._on_output)
        self._selector.register(self._child.pidfd, selectors.EVENT_READ, self._on_exit)

    def _on_output(self) -> None:
        piece = os.read(self._pipe, 1 << 20)
        self._output += piece
        if len(self._output) > _MAX_OUTPUT:
            self._close_pipe()
            self._stop(f"the profile compiler printed more than {_MAX_OUTPUT} bytes")
        elif not piece:
            self._close_pipe()

    def _stop(self, complaint: str) -> None:
        """Its end then tells."""
        self.deadline = None
        self._complaint = self._complaint or complaint
        if self._child is not None:
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._selector.unregister(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    def _on_exit(self) -> None:
        child, callbacks = self._child, self._callbacks
        if child is None:
            return
        if not self._complaint:
            self._read_rest()
        self._close_pipe()
        self._selector.unregister(child.pidfd)
        result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        os.close(child.pidfd)
        failed = result is None or result.si_code != os.CLD_EXITED or result.si_status != 0
        failure = self._complaint or ("the profiles do not compile; see above" if failed else "")
        templates: tuple[template.Template, ...] = ()
        if not failure:
            try:
                templates = template.load(self._output.decode())
            except (template.TemplateInvalid, UnicodeDecodeError) as error:
                failure = f"the profile compiler answered nonsense: {error}"
        self._child, self.deadline = None, None
        self._callbacks, self._later = self._later, []
        if self._callbacks:
            self._start()
        for done, refused in callbacks:
            if failure:
                refused(failure)
            else:
                done(templates)

    def _read_rest(self) -> None:
        """What it left in the pipe, without waiting for whoever else may hold the other end."""
        with suppress(BlockingIOError):
            while self._pipe >= 0 and (piece := os.read(self._pipe, 1 << 20)):
                self._output += piece
