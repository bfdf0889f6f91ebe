"""Collects what is found in one source: once each, so many of each code at most, and of bounded length.

Bounded code by code, so that a hundred imports cannot push out the one process that is started. Filled by the
languages.
"""

import math
from collections import Counter

from sandboxd.analysis.commandline import Code
from sandboxd.finding import Failure, FindingCode

MAX_OF_A_CODE = 32
MAX_FINDINGS = (MAX_OF_A_CODE + 1) * len(FindingCode)
MAX_DETAIL_CHARS = 128
MAX_EMBEDDED = 16
MAX_EMBEDDED_CHARS = 128 * 1024  # of all that is read in one source, and in what is in it


class Report:
    """`embedded` is source that stands as text in the source: what is handed to an `eval`, or to `bash -c`."""

    def __init__(self) -> None:
        self.found: dict[tuple[FindingCode, str], int] = {}
        self.embedded: list[tuple[Code, int]] = []
        self._counts: Counter[FindingCode] = Counter()

    def add(self, code: FindingCode, detail: str, line: int) -> None:
        key = (code, _bounded(detail))
        if key in self.found:
            return
        if self._counts[code] >= MAX_OF_A_CODE:
            self.cut(code.value, line)
            return
        self._counts[code] += 1
        self.found[key] = line

    def cut(self, what: str, line: int) -> None:
        """There is more of it than is told."""
        self.found.setdefault((FindingCode.CUT, what), line)

    def fail(self, failure: Failure, line: int = 0) -> None:
        self.add(FindingCode.FAILED, failure.value, line)

    def embed(self, code: Code | None, line: int) -> None:
        """Nothing if there is none; the same once."""
        if code is None or not code.text or code in (known for known, _ in self.embedded):
            return
        if len(self.embedded) < MAX_EMBEDDED:
            self.embedded.append((code, line))
        else:
            self.cut("embedded", line)


def _bounded(detail: str) -> str:
    return detail if len(detail) <= MAX_DETAIL_CHARS else detail[: MAX_DETAIL_CHARS - 1] + "…"


def entropy(source: bytes) -> float:
    """Bits per byte: 4 to 5 for ordinary source, 6 for base64, near 8 for what is packed."""
    total = len(source)
    return round(sum(-n / total * math.log2(n / total) for n in Counter(source).values()) + 0.0, 3)
