"""Places that several callers share: none of them can take so many that another finds its own part taken.

Half of the places are parts, one of the same size for each uid; the other half goes to whoever comes first. Pure.
Called by `relay` for connections and by `interceptors` for calls.
"""

from collections import Counter


class Shares:
    """How many places each uid holds. Only `uids` may take one."""

    def __init__(self, total: int, uids: frozenset[int]) -> None:
        self._total = total
        self._uids = uids
        self._part = total // (2 * max(1, len(uids)))
        self._held: Counter[int] = Counter()

    def fits(self, uid: int) -> bool:
        """Whether there is a place for it that no other uid's part needs."""
        others = sum(max(0, self._part - self._held[other]) for other in self._uids if other != uid)
        return self._held.total() + others < self._total

    def over(self, uid: int) -> bool:
        """Whether it holds more than its own part."""
        return self._held[uid] > self._part

    def take(self, uid: int) -> None:
        self._held[uid] += 1

    def give_back(self, uid: int) -> None:
        self._held[uid] -= 1
