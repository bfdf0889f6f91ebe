"""What one worker answered, by all that the policy read of the question: the same again needs no evaluation.

A policy that looks at nothing but the question is a function of what it reads; so whatever differs elsewhere (the ids,
the words of a program that no rule looks at) has the same answer. Never holds what a worker failed at, and never
outlives the worker that said it. Called by `policy.rego`.
"""

from collections import OrderedDict

from sandboxd.model import Decision
from sandboxd.policy.memory import MAX_TEXT_CHARS, text_chars

MAX_ANSWERS = 4096
MAX_QUESTION_BYTES = 4096


class Answers:
    """Of too many the one that was not used for longest goes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Decision] = OrderedDict()

    def to(self, question: bytes) -> Decision | None:
        found = self._kept.get(question)
        if found is not None:
            self._kept.move_to_end(question)
        return found

    def keep(self, question: bytes, decision: Decision) -> None:
        """Not a long one: what would fill this is as seldom asked again."""
        if len(question) <= MAX_QUESTION_BYTES and text_chars(decision) <= MAX_TEXT_CHARS:
            self._kept[question] = decision
            self._kept.move_to_end(question)
            if len(self._kept) > MAX_ANSWERS:
                self._kept.popitem(last=False)
