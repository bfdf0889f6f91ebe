"""The stock of blank inits: made while nothing else is to do, handed out in the order they were asked for.

Never hands one out twice and never takes one back. Follows demand: the shape asked for last is kept in full number, the
few before it with one each. Called by `service`, whose selector drives it.
"""

import os
import secrets
import selectors
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from sandboxd.spawner import rehearsal
from sandboxd.spawner.blank import BirthFailed, Blank, begin
from sandboxd.spawner.cgroup import CgroupTree
from sandboxd.spawner.ids import IdBlock, IdPool, IdsUnavailable
from sandboxd.spawner.living import remove
from sandboxd.spawner.plans import Prepared, Shape

Taker = Callable[[Blank | BirthFailed], None]
_REMEMBERED_SHAPES = 4
# No message for this long: one more may be made. A birth takes a CPU for longer than a short program runs, so while
# there is enough in stock it keeps out of the way of the request that has just come, and of the program that runs.
_SHORT_SECONDS = 0.004
_ENOUGH_SECONDS = 0.02
_BUSY_SECONDS = 0.25


class Stock:
    """Blanks being born, idle ones, and those who wait for one."""

    def __init__(self, ids: IdPool, tree: CgroupTree, target: int, selector: selectors.BaseSelector) -> None:
        self._ids = ids
        self._tree = tree
        self._target = target
        self._selector = selector
        self._prepared: Mapping[str, Prepared] = {}
        self._births: dict[int, Blank] = {}
        self._idle: list[Blank] = []
        self._waiting: deque[tuple[Shape, Taker]] = deque()
        self._wanted: dict[Shape, Prepared] = {}  # the template each was asked for last; oldest first
        self._failing = False  # no refill by itself until somebody asks again

    def replace(self, prepared: Mapping[str, Prepared]) -> None:
        """New templates: blanks inherited the old ones, so they go, and who waits for an old shape is told."""
        self.close()
        self._prepared = dict(prepared)
        self._wanted = {}
        for one in sorted(prepared.values(), key=_default_last):
            self._want(one)
        waiting, self._waiting = self._waiting, deque()
        for shape, taker in waiting:
            if shape in self._wanted:
                self.take(self._wanted[shape], taker)
            else:
                taker(BirthFailed("the profiles were changed meanwhile; try again"))
        self._forget_shapes()

    def take(self, prepared: Prepared, taker: Taker) -> None:
        """Calls back with a ready blank, at once if one is idle; with the failure if none can be made."""
        self._failing = False
        shape = prepared.shape
        self._want(prepared)
        self._forget_shapes()
        for blank in [idle for idle in self._idle if idle.shape == shape]:
            self._idle.remove(blank)
            if _lives(blank):
                taker(blank)
                return
            self.discard(blank)
        self._waiting.append((shape, taker))
        if _count(self._births.values(), shape) < sum(1 for waiting, _ in self._waiting if waiting == shape):
            self._begin(prepared)

    @property
    def wants_refill(self) -> bool:
        return not self._failing and self._next() is not None

    def patience_seconds(self, *, busy: bool) -> float:
        """How long it must have been quiet before `refill` is due; `busy` while any sandbox lives."""
        latest = next(reversed(self._wanted), None)
        if latest is None or 2 * _count(self._idle, latest) < self._target:
            return _SHORT_SECONDS
        return _BUSY_SECONDS if busy else _ENOUGH_SECONDS

    def refill(self) -> None:
        """Begin one more. Called when idle: a birth competes with requests for the CPU."""
        likely = self._next()
        if likely is not None:
            self._begin(likely)

    def close(self) -> None:
        for blank in self._births.values():
            self._selector.unregister(blank.sock)
        for blank in (*self._idle, *self._births.values()):
            self.discard(blank)
        self._idle.clear()
        self._births.clear()

    def discard(self, blank: Blank) -> None:
        """End a blank that nobody gets, or that was handed out but cannot be used."""
        signal.pidfd_send_signal(blank.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, blank.pidfd, os.WEXITED)
        blank.close()
        if remove(blank.cgroup):
            self._ids.give_back(blank.ids)

    def _want(self, prepared: Prepared) -> None:
        self._wanted.pop(prepared.shape, None)
        self._wanted[prepared.shape] = prepared

    def _forget_shapes(self) -> None:
        for shape in list(self._wanted)[:-_REMEMBERED_SHAPES]:
            del self._wanted[shape]

    def _next(self) -> Prepared | None:
        """Of what one more is to be made, by how recently it was asked for."""
        for place, (shape, likely) in enumerate(reversed(self._wanted.items())):
            there = _count(self._idle, shape) + _count(self._births.values(), shape)
            if there < (self._target if place == 0 else min(1, self._target)):
                return likely
        return None

    def _begin(self, likely: Prepared) -> None:
        shape = likely.shape
        try:
            ids = self._take_ids(shape)
        except IdsUnavailable as error:
            self._fail(shape, BirthFailed(str(error)))
            return
        cgroup = None
        try:
            cgroup = self._tree.create(secrets.token_hex(16))
            blank = begin(ids, cgroup, likely, self._prepared)
        except OSError as error:
            if cgroup is not None:
                remove(cgroup)
            self._ids.give_back(ids)
            self._fail(shape, BirthFailed(str(error)))
            return
        self._births[blank.pid] = blank
        self._selector.register(blank.sock, selectors.EVENT_READ, lambda: self._advance(blank))

    def _take_ids(self, shape: Shape) -> IdBlock:
        """If none are left and somebody waits, those of a blank that nobody asked for."""
        try:
            return self._ids.take()
        except IdsUnavailable:
            if not self._idle or all(waiting != shape for waiting, _ in self._waiting):
                raise
            self.discard(self._idle.pop(0))
            return self._ids.take()

    def _advance(self, blank: Blank) -> None:
        try:
            blank.advance()
        except (BirthFailed, OSError) as error:
            self._leave_births(blank)
            self.discard(blank)
            self._fail(blank.shape, BirthFailed(str(error)))
            return
        if not blank.ready:
            return
        self._leave_births(blank)
        with suppress(OSError):  # out of descriptors: that is told to whom it keeps from something
            rehearsal.rehearse(rehearsal.OF_THE_SPAWNER)
        for index, (shape, taker) in enumerate(self._waiting):
            if shape == blank.shape:
                del self._waiting[index]
                taker(blank)
                return
        self._idle.append(blank)
        self._forget_one_too_many()

    def _leave_births(self, blank: Blank) -> None:
        del self._births[blank.pid]
        self._selector.unregister(blank.sock)

    def _forget_one_too_many(self) -> None:
        for blank in self._idle:
            if blank.shape not in self._wanted:
                self._idle.remove(blank)
                self.discard(blank)
                return

    def _fail(self, shape: Shape, failure: BirthFailed) -> None:
        self._failing = True
        waiting = [entry for entry in self._waiting if entry[0] == shape]
        for entry in waiting[: len(waiting) - _count(self._births.values(), shape)]:
            self._waiting.remove(entry)
            entry[1](failure)


def _lives(blank: Blank) -> bool:
    """Not whether it will: the kernel may have killed it for want of memory while it was idle."""
    return os.waitid(os.P_PIDFD, blank.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _count(blanks: Iterable[Blank], shape: Shape) -> int:
    return sum(1 for blank in blanks if blank.shape == shape)


def _default_last(prepared: Prepared) -> tuple[bool, str]:
    return prepared.template.name == "default", prepared.template.name
