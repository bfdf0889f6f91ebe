"""What redaction comes to, by trying every substring of the whole text: slow, obvious, and with another engine."""

import re
from collections import Counter
from collections.abc import Mapping

from sandboxd.redaction.patterns import Source


def redacted(text: bytes, sources: Mapping[str, Source]) -> tuple[bytes, Counter[str]]:
    spans = [(*span, name) for name, source in sources.items() for span in matches(text, source)]
    counts = Counter(name for _, _, name in spans)
    out = b""
    covered = 0
    for start, end, name in sorted(spans, key=lambda span: (span[0], span[2])):
        if start >= covered:
            out += text[covered:start] + b"[redacted:%b]" % name.encode()
        covered = max(covered, end)
    return out + text[covered:], counts


def matches(text: bytes, source: Source) -> list[tuple[int, int]]:
    """The leftmost, of those at one place the longest, then behind it."""
    found = []
    at = 0
    while (span := _longest(text, source.pattern, at, len(text))) is not None:
        start, end = span
        if source.until:
            bound = min(start + source.max_bytes, len(text))
            closing = _longest(text, source.until, end, bound)
            end = bound if closing is None else closing[1]
        found.append((start, end))
        at = end
    return found


def _longest(text: bytes, pattern: str, start: int, end: int) -> tuple[int, int] | None:
    expression = re.compile(pattern.encode())
    for first in range(start, end):
        for last in range(end, first, -1):
            if expression.fullmatch(text, first, last):
                return first, last
    return None
