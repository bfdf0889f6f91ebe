"""A JSON document without what patterns match, in the form by which `policy replay` sees that something is missing.

A text that holds a match goes whole: what is left of it would be decided on as if it were all. So does a list of words
that hold one together, as a command has them. Called by `redaction`.
"""

import json
from collections.abc import Callable

# Stands in a stored document for a value that was taken out of it: {REDACTED: why}.
REDACTED = "sandboxd.io/redacted"

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


def redacted(document: bytes, found: Callable[[str], str]) -> bytes:
    """Canonical JSON. `found` names what is in a text, empty if nothing; the same document if nothing is anywhere."""
    whole: Json = json.loads(document)
    rest = _without(whole, found)
    if rest == whole:
        return document
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _without(value: Json, found: Callable[[str], str]) -> Json:
    match value:
        case str():
            names = found(value)
            return {REDACTED: names} if names else value
        case list():
            rest = [_without(item, found) for item in value]
            names = found(" ".join(item if isinstance(item, str) else "\0" for item in rest))
            return {REDACTED: names} if names else rest  # it begins in one word and ends in the next
        case dict():
            # A key cannot be a marker, so its object goes.
            for key in value:
                if names := found(key):
                    return {REDACTED: names}
            return {key: _without(item, found) for key, item in value.items()}
        case _:
            return value
