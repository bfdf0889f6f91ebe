"""The stock of blank inits: made while nothing else is to do, handed out in the order they were asked for.

Never hands one out twice and never takes one back. Called by `service`, whose selector drives it.
"""

import os
import secrets
import selectors
import signal
from collections import deque
from collections.abc import Callable, Mapping

from sandboxd.spawner.blank import BirthFailed, Blank, begin
from sandboxd.spawner.cgroup import CgroupTree
from sandboxd.spawner.ids import IdPool, IdsUnavailable
from sandboxd.spawner.living import remove
from sandboxd.spawner.plans import Prepared

Taker = Callable[[Blank | BirthFailed], None]


class Stock:
    """Blanks being born, idle ones, and those who wait for one."""

    def __init__(self, ids: IdPool, tree: CgroupTree, target: int, selector: selectors.BaseSelector) -> None:
        self._ids = ids
        self._tree = tree
        self._target = target
        self._selector = selector
        self._prepared: Mapping[str, Prepared] = {}
        self._births: dict[int, Blank] = {}
        self._idle: deque[Blank] = deque()
        self._waiting: deque[Taker] = deque()
        self._failing = False  # no refill by itself until somebody asks again

    def replace(self, prepared: Mapping[str, Prepared]) -> None:
        """New templates: blanks inherited the old ones, so they go."""
        self._prepared = prepared
        for blank in (*self._idle, *self._births.values()):
            self._forget(blank)
        self._idle.clear()
        self._births.clear()
        for _ in self._waiting:
            self._begin()

    def take(self, taker: Taker) -> None:
        """Calls back with a ready blank, at once if one is idle; with the failure if none can be made."""
        self._failing = False
        if self._idle:
            taker(self._idle.popleft())
            return
        self._waiting.append(taker)
        if len(self._births) < len(self._waiting):
            self._begin()

    @property
    def wants_refill(self) -> bool:
        return not self._failing and bool(self._prepared) and len(self._idle) + len(self._births) < self._target

    def refill(self) -> None:
        """Begin one more. Called when idle: a birth competes with requests for the CPU."""
        if self.wants_refill:
            self._begin()

    def close(self) -> None:
        for blank in (*self._idle, *self._births.values()):
            self._forget(blank)
        self._idle.clear()
        self._births.clear()

    def discard(self, blank: Blank) -> None:
        """End a blank that was handed out but cannot be used."""
        self._end(blank)

    def _begin(self) -> None:
        try:
            ids = self._ids.take()
        except IdsUnavailable as error:
            self._fail(BirthFailed(str(error)))
            return
        cgroup = None
        try:
            cgroup = self._tree.create(secrets.token_hex(16))
            blank = begin(ids, cgroup, self._prepared)
        except OSError as error:
            if cgroup is not None:
                cgroup.remove()
            self._ids.give_back(ids)
            self._fail(BirthFailed(str(error)))
            return
        self._births[blank.pid] = blank
        self._selector.register(blank.sock, selectors.EVENT_READ, lambda: self._advance(blank))

    def _advance(self, blank: Blank) -> None:
        try:
            blank.advance()
        except (BirthFailed, OSError) as error:
            del self._births[blank.pid]
            self._forget(blank)
            self._fail(BirthFailed(str(error)))
            return
        if not blank.ready:
            return
        del self._births[blank.pid]
        self._selector.unregister(blank.sock)
        if self._waiting:
            self._waiting.popleft()(blank)
        else:
            self._idle.append(blank)

    def _fail(self, failure: BirthFailed) -> None:
        self._failing = True
        while self._waiting and len(self._waiting) > len(self._births):
            self._waiting.popleft()(failure)

    def _forget(self, blank: Blank) -> None:
        if blank.pid in self._births or not blank.ready:
            self._selector.unregister(blank.sock)
        self._end(blank)

    def _end(self, blank: Blank) -> None:
        blank.sock.close()
        signal.pidfd_send_signal(blank.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, blank.pidfd, os.WEXITED)
        os.close(blank.pidfd)
        remove(blank.cgroup)
        self._ids.give_back(blank.ids)
