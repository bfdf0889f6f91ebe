"""What of the input a bundle reads: where at all, and whether the moment is there or what happened before.

Errs to that side: whatever cannot be followed by reading (the whole input, a computed key) counts as everything. No
function that the embedded engine is proven on has another source of change. Called by `policy.rego` and `replay`.
"""

from collections.abc import Sequence

from sandboxd.policy.document import HISTORY, MOMENT
from sandboxd.policy.rego_builtins import TOKEN


def reads_the_moment(modules: Sequence[tuple[str, str]]) -> bool:
    return reads(modules, (*MOMENT, *HISTORY))


def places_read(modules: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], ...] | None:
    """Outside of these, and what is below each, no module can see a difference; None: anywhere."""
    found: set[tuple[str, ...]] = set()
    for _, source in modules:
        for match in TOKEN.finditer(source):
            if match[0] == "$":
                return None
            first, *path = match[0].split(".") if match.lastgroup == "name" else ("", "")
            if first == "input":
                found.add(tuple(path))
    return None if () in found else tuple(sorted(found))


def reads(modules: Sequence[tuple[str, str]], places: Sequence[tuple[str, ...]]) -> bool:
    """Whether any of these places of the input may be read, or what is below or above them."""
    paths = tuple(".".join(("input", *path, "")) for path in places)
    return any(_reads(source, paths) for _, source in modules)


def _reads(source: str, paths: Sequence[str]) -> bool:
    for match in TOKEN.finditer(source):
        if match.lastgroup == "name":
            read = f"{match[0]}."
            if any(read.startswith(path) or path.startswith(read) for path in paths):
                return True
        elif match[0] == "$":  # a template string, whose expressions are not looked into
            return True
    return False
