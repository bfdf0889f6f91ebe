"""What the journal did not take, until it takes it: counted, and of what is over, kept.

Never grows without bound and never forgets a count. Written down by `audit.recorder` alone.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from sandboxd.audit.line import timestamp
from sandboxd.event import Event, JournalGap

MOST_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Missed:
    event: Event
    time_ns: int


@dataclass(slots=True)
class _Counts:
    since_ns: int = 0
    documents: int = 0
    rules: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.documents or self.rules)


class Gap:
    """Counts and kept events leave it when they are written, and come back if that is taken back."""

    def __init__(self) -> None:
        self._counts = _Counts()
        self._kept: deque[Missed] = deque()
        self._unsure: list[tuple[int, _Counts | Missed]] = []  # written as that record, not yet durable

    @property
    def open(self) -> bool:
        return bool(self._counts or self._kept)

    def miss(self, event: Event, time_ns: int) -> None:
        self._count(time_ns).rules[event.rule] += 1
        if event.keep and len(self._kept) < MOST_KEPT:
            self._kept.append(Missed(event, time_ns))

    def miss_document(self, time_ns: int) -> None:
        self._count(time_ns).documents += 1

    def next(self, time_ns: int) -> Missed | None:
        """What has to be written next: the sum, then each event that was kept."""
        if self._counts:
            counts = self._counts
            rules = tuple(sorted(counts.rules.items()))
            sums = (timestamp(counts.since_ns), counts.rules.total(), counts.documents, len(self._kept), rules)
            return Missed(JournalGap("", "", "", "", "", "", *sums), time_ns)
        return self._kept[0] if self._kept else None

    def written(self, seq: int) -> None:
        """What `next` gave is record `seq` now."""
        if self._counts:
            self._unsure.append((seq, self._counts))
            self._counts = _Counts()
        else:
            self._unsure.append((seq, self._kept.popleft()))

    def durable(self, seq: int) -> None:
        """No record up to there is taken back any more."""
        self._unsure = [(at, what) for at, what in self._unsure if at > seq]

    def taken_back(self) -> None:
        for _, what in reversed(self._unsure):
            if isinstance(what, Missed):
                self._kept.appendleft(what)
            else:
                what.documents += self._counts.documents
                what.rules.update(self._counts.rules)
                self._counts = what
        self._unsure = []

    def _count(self, time_ns: int) -> _Counts:
        if not self._counts:
            self._counts.since_ns = time_ns
        return self._counts
