"""Where the matches of one pattern are in a text that comes in pieces: the same places however it is cut.

Needs of the text only what comes from `decided` on, and that is never more than one match of the pattern (without its
last part that goes on, and without its block) behind the end. Called by `stream`.
"""

from dataclasses import dataclass

from sandboxd.redaction.patterns import Finder, Pattern, Patterns


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that are taken out, by their places in the whole text. `opens`: a match begins, and does not go on."""

    start: int
    end: int
    opens: bool


class Search:
    """Finds the leftmost match, of those at one place the longest, then goes on behind it."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.decided = 0  # before it, it is known of each byte whether it belongs to a match
        self._goes_on = False
        self._block_ends: int | None = None

    @property
    def inside(self) -> bool:
        """Whether what comes next belongs to a match."""
        return self._goes_on or self._block_ends is not None

    def advance(self, text: bytes, base: int, *, last: bool) -> list[Span]:
        """The spans that follow from `text`, which stands at `base` in the whole one; `last`: with it that ends."""
        spans: list[Span] = []
        at = max(0, self.decided - base)  # its caller may know more
        undecided = -1
        while True:
            if self._goes_on:
                at = self._run(text, base, at, spans, last=last)
                if self._goes_on:
                    break
            elif self._block_ends is not None:
                at = self._block(text, base, at, spans, last=last)
                if self._block_ends is not None:
                    break
            else:
                if undecided < at:
                    undecided = _undecided(self.pattern.start, text, at, len(text), last=last)
                found = self.pattern.start.found.search(text, at, len(text))
                start, end = (undecided, undecided) if found is None else found.span()
                if start >= undecided:
                    at = undecided
                    break
                at = self._begin(base, start, end, spans)
        self.decided = base + at
        return spans

    def _begin(self, base: int, start: int, end: int, spans: list[Span]) -> int:
        spans.append(Span(base + start, base + end, opens=True))
        self._goes_on = self.pattern.over is not None
        self._block_ends = base + start + self.pattern.max_bytes if self.pattern.until is not None else None
        return end

    def _run(self, text: bytes, base: int, at: int, spans: list[Span], *, last: bool) -> int:
        """The match goes on until a byte that does not belong to it."""
        assert self.pattern.over is not None
        over = self.pattern.over.search(text, at, len(text))
        end = len(text) if over is None else over.span()[0]
        spans.append(Span(base + at, base + end, opens=False))
        self._goes_on = over is None and not last
        return end

    def _block(self, text: bytes, base: int, at: int, spans: list[Span], *, last: bool) -> int:
        """The match goes on until its closing, or until it is as long as a match may be."""
        assert self.pattern.until is not None and self._block_ends is not None
        end = min(self._block_ends - base, len(text))
        last = last or self._block_ends - base <= len(text)
        undecided = _undecided(self.pattern.until, text, at, end, last=last)
        closing = self.pattern.until.found.search(text, at, end)
        if closing is not None and closing.span()[0] < undecided:
            end = closing.span()[1]
            last = True
        elif not last:
            end = undecided
        spans.append(Span(base + at, base + end, opens=False))
        if last:
            self._block_ends = None
        return end


def covered(text: bytes, patterns: Patterns) -> list[tuple[int, int, Pattern]]:
    """All that is taken out of a whole text, from where to where, in order: what overlaps is one, by the first."""
    spans = [
        (span.start, span.opens, number, span.end)
        for number, pattern in enumerate(patterns.each)
        for span in Search(pattern).advance(text, 0, last=True)
    ]
    parts: list[tuple[int, int, Pattern]] = []
    for start, opens, number, end in sorted(spans):
        if parts and (start < parts[-1][1] or (start == parts[-1][1] and not opens)):
            first, furthest, pattern = parts[-1]
            parts[-1] = first, max(furthest, end), pattern
        elif end > start:
            parts.append((start, end, patterns.each[number]))
    return parts


def _undecided(finder: Finder, text: bytes, start: int, end: int, *, last: bool) -> int:
    return end if last else finder.undecided(text, start, end)
