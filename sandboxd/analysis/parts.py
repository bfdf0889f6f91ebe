"""A text that a source builds of parts: put together where they are known, and no more of it than so much in all.

Called by the languages' own `python_text` and `javascript_text`.
"""

from sandboxd.analysis.report import Report

UNKNOWN = "${_}"  # what stands for a part that is not known: to a shell, something that it expands
_LONGEST = 65536
_MOST_BUILT = 4 << 20

Parts = list[str | None]  # None is what is not known


class Builder:
    """For one source."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._room = _MOST_BUILT

    def whole(self, parts: Parts) -> str | None:
        """None if one of them is not known, or if it gets too long."""
        known = [part for part in parts if part is not None]
        length = sum(map(len, known))
        if len(known) < len(parts) or length > _LONGEST:
            return None
        if len(parts) == 1:
            return known[0]
        if length > self._room:
            self._report.cut("text", 0)
            return None
        self._room -= length
        return "".join(known)

    def shape(self, parts: Parts) -> str:
        """With UNKNOWN for what is not known; empty if nothing is."""
        return self.whole([UNKNOWN if part is None else part for part in parts]) or "" if any(parts) else ""
