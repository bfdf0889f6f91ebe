"""Takes what patterns match out of one stream of bytes, and puts a marker in its place.

Each pattern is searched for by itself; where matches of several overlap, all of it goes, and the marker has the name of
the one that begins first. What comes out is the same however the stream is cut into pieces, and no byte of a match is
ever in it. What may still become a match is held back: less than the longest beginning of a match, MAX_POSITIONS bytes
at most, however much comes. Called by `redaction`.
"""

from collections.abc import Callable

from sandboxd.redaction.patterns import Patterns
from sandboxd.redaction.search import Search, Span


class StreamRedactor:
    """`found` hears the name of each match."""

    def __init__(self, patterns: Patterns, found: Callable[[str], None]) -> None:
        self._searches = tuple(map(Search, patterns.each))
        self._any = patterns.any
        self._found = found
        self._text = b""  # what is held back
        self._base = 0  # its place in the whole
        self._covered = 0  # before it, everything that was to be taken out is
        self._ahead: list[tuple[Span, int]] = []  # begin in what is held back; with the number of their search

    @property
    def held(self) -> int:
        return len(self._text)

    def feed(self, data: bytes) -> bytes:
        """What can be passed on now; often less than `data`, and seldom more."""
        self._text += data
        untouched = self._untouched()
        return self._advance(last=False) if untouched is None else untouched

    def finish(self) -> bytes:
        """The rest. Nothing is fed afterwards."""
        return self._advance(last=True)

    def _untouched(self) -> bytes | None:
        """What can be passed on as it is, if that can be told at once for all patterns."""
        text = self._text
        if self._any is None or self._covered > self._base or self._ahead or any(one.inside for one in self._searches):
            return None
        undecided = self._any.undecided(text, 0, len(text))
        found = self._any.found.search(text, 0, len(text))
        if found is not None and found.span()[0] < undecided:
            return None
        self._text = text[undecided:]
        self._base += undecided
        return text[:undecided]

    def _advance(self, *, last: bool) -> bytes:
        ahead = self._ahead
        for number, search in enumerate(self._searches):
            for span in search.advance(self._text, self._base, last=last):
                ahead.append((span, number))
                if span.opens:
                    self._found(search.pattern.name)
        decided = min((search.decided for search in self._searches), default=self._base + len(self._text))
        # What goes on comes first: whatever begins where it went on overlaps it.
        ahead.sort(key=lambda entry: (entry[0].start, entry[0].opens, entry[1]))
        out = self._passed(decided)
        self._text = self._text[decided - self._base :]
        self._base = decided
        return out

    def _passed(self, decided: int) -> bytes:
        """Everything from what was passed on last up to `decided`, with markers."""
        out: list[bytes] = []
        at = max(self._base, self._covered)
        taken = 0
        for span, number in self._ahead:
            if span.start >= decided:
                break
            taken += 1
            if span.opens and span.start >= self._covered:
                out.append(self._text[at - self._base : span.start - self._base])
                out.append(self._searches[number].pattern.marker)
            self._covered = max(self._covered, span.end)
            at = max(at, self._covered)
        del self._ahead[:taken]
        if at < decided:
            out.append(self._text[at - self._base : decided - self._base])
        return b"".join(out)
