"""Runs the profile compiler as a short-lived child, unprivileged, and reads its templates from a pipe.

The daemon has no part in it, so a daemon that was taken over cannot widen a template. Called by `service`.
"""

import os
import selectors
import signal
from collections.abc import Callable

from sandboxd.spawner import children, template
from sandboxd.spawner.options import Options
from sandboxd.spawner.site import Site

_MAX_OUTPUT = 64 * 1024 * 1024

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
        self._callbacks: list[tuple[Done, Failed]] = []
        self._later: list[tuple[Done, Failed]] = []

    def begin(self, done: Done, failed: Failed) -> None:
        if self._child is not None:
            self._later.append((done, failed))
            return
        self._callbacks = [(done, failed)]
        self._start()

    def close(self) -> None:
        if self._child is not None:
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._child.pidfd, os.WEXITED)

    def _start(self) -> None:
        self._output = bytearray()
        read, write = os.pipe2(os.O_CLOEXEC)
        self._child = children.start(
            self._site.stage,
            self._site.compiler,
            (
                "-m",
                "sandboxd.profile.compile",
                "--memfd",
                self._site.memfd,
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

    def _on_output(self) -> None:
        piece = os.read(self._pipe, 1 << 20)
        self._output += piece
        if piece and len(self._output) <= _MAX_OUTPUT:
            return
        self._selector.unregister(self._pipe)
        os.close(self._pipe)
        self._finish(too_large=len(self._output) > _MAX_OUTPUT)

    def _finish(self, *, too_large: bool) -> None:
        child, callbacks = self._child, self._callbacks
        if child is None:
            return
        if too_large:
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        os.close(child.pidfd)
        self._child = None
        self._callbacks, self._later = self._later, []
        if self._callbacks:
            self._start()
        failure = "" if result is not None and result.si_status == 0 else "the profiles do not compile; see above"
        templates: tuple[template.Template, ...] = ()
        if not failure:
            try:
                templates = template.load(self._output.decode())
            except (ValueError, KeyError, TypeError) as error:
                failure = f"the profile compiler answered nonsense: {error}"
        for done, failed in callbacks:
            if failure:
                failed(failure)
            else:
                done(templates)
