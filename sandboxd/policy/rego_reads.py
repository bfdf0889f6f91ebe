"""What of the input a bundle reads: where at all, and whether the moment is there or what happened before.

Errs to that side: whatever cannot be followed by reading (the whole input, a computed key) counts as everything. No
function that the embedded engine is proven on has another source of change. Called by `policy.rego` and `replay`.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from sandboxd.policy.document import HISTORY, MOMENT, as_text
from sandboxd.policy.rego_builtins import TOKEN

_Tree = dict[str, "_Tree | None"]


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


def reader(modules: Sequence[tuple[str, str]]) -> Callable[[bytes], bytes]:
    """Takes of a document what these modules read: to build what nobody looks at is most of what a question costs."""
    places = places_read(modules)
    if places is None:
        return _all
    tree = _tree(places)
    return lambda document: as_text(_pick(json.loads(document), tree)).encode()


def _all(document: bytes) -> bytes:
    return document


def _tree(places: Sequence[tuple[str, ...]]) -> _Tree:
    """By first name; None is all that is below it."""
    tree: _Tree = {}
    for place in sorted(places, key=len):  # what is above another first: it is all of it
        inner: _Tree | None = tree
        for name in place[:-1]:
            inner = inner.setdefault(name, {}) if inner is not None else None
        if inner is not None:
            inner.setdefault(place[-1], None)
    return tree


def _pick(value: Any, read: _Tree | None) -> Any:
    if read is None or type(value) is not dict:
        return value
    return {name: _pick(value[name], below) for name, below in read.items() if name in value}


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
