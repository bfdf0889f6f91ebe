"""Decisions that a policy allows to be taken again for equal questions (`ttl_seconds`), each for that long.

Never remembers what no policy gave, what an approval decides or what is large; a reload begins with an empty one.
Called by `gate`.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from sandboxd.model import Decision, Verdict

MAX_DECISIONS = 4096
MAX_TTL_SECONDS = 300.0
MAX_TEXT_CHARS = 4096


class Memory:
    """By `PolicyInput.key`; of too many the one that was not used for longest goes. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()

    def recall(self, key: bytes) -> Decision | None:
        found = self._kept.get(key)
        if found is None:
            return None
        until, decision = found
        if self._clock() >= until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return decision

    def keep(self, key: bytes, decision: Decision, asked_at: float) -> None:
        """Its time counts from when it was asked for. Does nothing if it is not one to be remembered."""
        if decision.ttl_seconds <= 0 or decision.verdict is Verdict.ESCALATE or text_chars(decision) > MAX_TEXT_CHARS:
            return
        remembered = replace(decision, remembered=True)
        self._kept[key] = (asked_at + min(decision.ttl_seconds, MAX_TTL_SECONDS), remembered)
        self._kept.move_to_end(key)
        if len(self._kept) > MAX_DECISIONS:
            self._kept.popitem(last=False)


def text_chars(decision: Decision) -> int:
    """One more for each text: many empty ones are large too."""
    reasons = (text for reason in decision.reasons for text in (reason.code, reason.message))
    texts = (decision.message_for_agent, *decision.obligations.redact, *reasons)
    return len(texts) + sum(map(len, texts))
