"""The stock of blank inits: made while nothing else is to do, and offered to the daemon, which names the one it uses.

Who names none waits for one that is born for him, in the order of asking. Nobody gets one twice. Follows demand: the
shape asked for last is kept in full number, the few before it with one each. Called by `sandboxes`; the selector of
`service` drives it.
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
from sandboxd.spawner.ids import IdPool, IdsUnavailable
from sandboxd.spawner.living import remove
from sandboxd.spawner.offers import Line, Offers, Send
from sandboxd.spawner.plans import Prepared, Shape

Taker = Callable[[Blank | BirthFailed], None]
_REMEMBERED_SHAPES = 4
# No message for this long: one more may be made. A birth takes a CPU for longer than a short program runs, so while
# there is enough in stock it keeps out of the way of the request that has just come, and of the program that runs.
_SHORT_SECONDS = 0.004
_ENOUGH_SECONDS = 0.02
_BUSY_SECONDS = 0.25


class Stock:
    """Blanks being born, idle ones, and those who wait for one. `send` is to the daemon."""

    def __init__(
        self, ids: IdPool, tree: CgroupTree, target: int, selector: selectors.BaseSelector, send: Send
    ) -> None:
        self._ids = ids
        self._tree = tree
        self._target = target
        self._selector = selector
        self._offers = Offers(send, selector, self._part_with)
        self._open = False  # to a daemon
        self._prepared: Mapping[str, Prepared] = {}
        self._births: dict[int, Blank] = {}
        self._idle: list[Blank] = []
        self._waiting: deque[tuple[Prepared, Taker]] = deque()
        self._wanted: dict[Shape, Prepared] = {}  # the template each was asked for last; oldest first
        self._failing = False  # no refill by itself until somebody asks again

    def open(self) -> None:
        """A daemon is there: it is offered all there is."""
        self._open = True
        for blank in tuple(self._idle):
            if _lives(blank):
                self._offer(blank)
            else:
                self._part_with(blank)

    def shut(self) -> None:
        """The daemon is gone: what it did not use is nobody's again."""
        self._open = False
        for blank in self._offers.forget():
            self.discard(blank)
        self._serve_waiting()

    def replace(self, prepared: Mapping[str, Prepared]) -> None:
        """New templates: blanks inherited the old ones, so they go, and who waits for an old shape is told."""
        self._discard_births()
        for blank in tuple(self._idle):
            self._part_with(blank)
        self._prepared = dict(prepared)
        self._wanted = {}
        for one in sorted(prepared.values(), key=_default_last):
            self._want(one)
        waiting, self._waiting = self._waiting, deque()
        for former, taker in waiting:
            if former.shape in self._wanted:
                self.take(self._wanted[former.shape], taker)
            else:
                taker(BirthFailed("the profiles were changed meanwhile; try again"))
        self._forget_shapes()

    def take(self, prepared: Prepared, taker: Taker) -> None:
        """Calls back with a blank that is born for it; with the failure if none can be made."""
        self._asked(prepared)
        self._waiting.append((prepared, taker))
        self._serve_waiting()

    def claim(self, offer: int, prepared: Prepared) -> tuple[Blank, Line] | None:
        """The offered blank that the daemon names, and its line; None if there is none that may become this."""
        blank = self._offers.find(offer)
        if blank is None or blank.shape != prepared.shape:
            return None
        self._asked(prepared)
        line = self._offers.claim(offer)
        if blank in self._idle:
            self._idle.remove(blank)
        else:
            self._serve_waiting()  # it was to make room for somebody, and does not
        return blank, line

    def returned(self, offer: int) -> None:
        """The daemon let go of it."""
        blank = self._offers.find(offer)
        if blank is not None:
            self._offers.claim(offer).close()
            if blank in self._idle:
                self._idle.remove(blank)
            self.discard(blank)
            self._serve_waiting()

    def undelivered(self, offer: int) -> None:
        """The daemon was never told of it, for want of room for descriptors; the next one would fare no better."""
        self._failing = True
        self.returned(offer)

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
        self._discard_births()
        for blank in (*self._offers.forget(), *self._idle):
            self.discard(blank)
        self._idle.clear()

    def discard(self, blank: Blank) -> None:
        """End a blank that nobody gets, or that was handed out but cannot be used."""
        signal.pidfd_send_signal(blank.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, blank.pidfd, os.WEXITED)
        blank.close()
        if remove(blank.cgroup):
            self._ids.give_back(blank.ids)

    def _discard_births(self) -> None:
        for blank in self._births.values():
            self._selector.unregister(blank.sock)
            self.discard(blank)
        self._births.clear()

    def _offer(self, blank: Blank) -> None:
        try:
            self._offers.make(blank, [name for name, one in self._prepared.items() if one.shape == blank.shape])
        except OSError:  # out of descriptors: who asks is told
            self._failing = True
            self._part_with(blank)

    def _part_with(self, blank: Blank) -> None:
        """End an idle one; if it is on offer, once the daemon has let go of it."""
        self._idle.remove(blank)
        if not self._offers.withdraw(blank):
            self.discard(blank)
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Each of those who wait has a birth of its own."""
        for prepared in {waiting.shape: waiting for waiting, _ in self._waiting}.values():
            while _count(self._births.values(), prepared.shape) < self._waiting_for(prepared.shape):
                if not self._begin(prepared):
                    break

    def _waiting_for(self, shape: Shape) -> int:
        return sum(1 for waiting, _ in self._waiting if waiting.shape == shape)

    def _asked(self, prepared: Prepared) -> None:
        self._failing = False
        self._want(prepared)
        self._forget_shapes()

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

    def _begin(self, likely: Prepared) -> bool:
        """Whether one is being born now."""
        shape = likely.shape
        try:
            ids = self._ids.take()
        except IdsUnavailable as error:
            if not self._make_room(shape):
                self._fail(shape, BirthFailed(str(error)))
            return False
        cgroup = None
        try:
            cgroup = self._tree.create(secrets.token_hex(16))
            blank = begin(ids, cgroup, likely, self._prepared)
        except OSError as error:
            if cgroup is not None:
                remove(cgroup)
            self._ids.give_back(ids)
            self._fail(shape, BirthFailed(str(error)))
            return False
        self._births[blank.pid] = blank
        self._selector.register(blank.sock, selectors.EVENT_READ, lambda: self._advance(blank))
        return True

    def _make_room(self, shape: Shape) -> bool:
        """Where somebody waits: the ids of a blank that nobody asked for are his, at once or when it is returned."""
        if not self._waiting_for(shape):
            return False
        if self._idle and self._offers.leaving < len(self._waiting):
            self._part_with(self._idle[0])
            return True
        return self._offers.leaving > 0

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
        for index, (prepared, taker) in enumerate(self._waiting):
            if prepared.shape == blank.shape:
                del self._waiting[index]
                taker(blank)
                return
        self._idle.append(blank)
        if self._open:
            self._offer(blank)
        self._forget_one_too_many()

    def _leave_births(self, blank: Blank) -> None:
        del self._births[blank.pid]
        self._selector.unregister(blank.sock)

    def _forget_one_too_many(self) -> None:
        for blank in self._idle:
            if blank.shape not in self._wanted:
                self._part_with(blank)
                return

    def _fail(self, shape: Shape, failure: BirthFailed) -> None:
        self._failing = True
        waiting = [entry for entry in self._waiting if entry[0].shape == shape]
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
