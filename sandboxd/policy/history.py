"""What a tenant did lately, for rules about rates: executions, denials and bytes out, in the last minute and hour.

Counts since the daemon started; nothing is kept on disk. Never grows with the number of actions, nor without bound with
that of tenants. Called by `gate`, which puts it into every question.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

MAX_TENANTS = 4096
_MINUTE, _HOUR = 60.0, 3600.0
_PARTS = 60  # of a window: one ends up to a sixtieth of its length late


@dataclass(frozen=True, slots=True)
class Counts:
    """`executions` that policy let start, actions that it denied, bytes of output and files that left a sandbox."""

    executions: int = 0
    denials: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Of the caller's tenant on this node, without the action that is asked about."""

    last_minute: Counts = Counts()
    last_hour: Counts = Counts()


NO_HISTORY = History()


class _Window:
    """The sum of the last `seconds`."""

    __slots__ = ("_part_seconds", "_parts", "_sum")

    def __init__(self, seconds: float) -> None:
        self._part_seconds = seconds / _PARTS
        self._parts: deque[tuple[int, list[int]]] = deque()
        self._sum = [0, 0, 0]

    def add(self, now: float, amounts: tuple[int, int, int]) -> None:
        part = int(now / self._part_seconds)
        if not self._parts or self._parts[-1][0] != part:
            self._parts.append((part, [0, 0, 0]))
        for index, amount in enumerate(amounts):
            self._parts[-1][1][index] += amount
            self._sum[index] += amount

    def counts(self, now: float) -> Counts:
        oldest = int(now / self._part_seconds) - _PARTS
        while self._parts and self._parts[0][0] < oldest:
            for index, amount in enumerate(self._parts.popleft()[1]):
                self._sum[index] -= amount
        return Counts(*self._sum)


class Counters:
    """Of every tenant; of too many the one that did nothing for longest is forgotten. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tenants: OrderedDict[str, tuple[_Window, _Window]] = OrderedDict()

    def of(self, tenant: str) -> History:
        windows = self._tenants.get(tenant)
        if windows is None:
            return NO_HISTORY
        now = self._clock()
        return History(*(window.counts(now) for window in windows))

    def add(self, tenant: str, *, executions: int = 0, denials: int = 0, bytes_out: int = 0) -> None:
        now = self._clock()
        windows = self._tenants.setdefault(tenant, (_Window(_MINUTE), _Window(_HOUR)))
        self._tenants.move_to_end(tenant)
        for window in windows:
            window.counts(now)  # what is over goes, also where nobody asks
            window.add(now, (executions, denials, bytes_out))
        if len(self._tenants) > MAX_TENANTS:
            self._tenants.popitem(last=False)
