"""Reads an input of policy that a person wrote or copied, and says what is wrong with it and where.

By the schema that is published. Never on the way of a decision: called by `sandboxctl policy check` and `rpc.policy`,
which import it where it is needed, since its library takes a while.
"""

from collections.abc import Iterator
from itertools import islice

from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from sandboxd.errors import InvalidRequest, PolicyInvalid
from sandboxd.policy import bundle_data
from sandboxd.policy.document import MAX_DOCUMENT_BYTES
from sandboxd.policy.schema import schema

MOST_MISTAKES = 20
_SHOWN_CHARS = 200


def read_input(name: str, content: bytes) -> bytes:
    """The document as an engine is given it. InvalidRequest with a line for each mistake; `name` begins each."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidRequest(f"{name}: is over {MAX_DOCUMENT_BYTES} bytes; no engine is asked more")
    try:
        value = bundle_data.parse(name, content)
    except PolicyInvalid as error:
        raise InvalidRequest(error.message) from error
    # No more are looked for: of a large input they take minutes.
    if mistakes := sorted(islice(_mistakes(bundle_data.plain(value)), MOST_MISTAKES)):
        raise InvalidRequest("\n".join(f"{name}: {mistake}" for mistake in mistakes))
    return bundle_data.as_json(value).encode()


def _mistakes(value: object) -> Iterator[str]:
    """Of the actions by the one that the input names, so that a mistake is told where it is."""
    whole = schema()
    properties = whole["properties"]
    assert isinstance(properties, dict)
    kinds = {kind["properties"]["type"]["const"]: kind for kind in properties["action"]["anyOf"]}
    match value:
        case {"action": {"type": str(name)}} if name in kinds:
            whole = {**whole, "properties": {**properties, "action": kinds[name]}}
        case {"action": {"type": other}}:
            yield f"action.type: {str(other)[:_SHOWN_CHARS]!r} is not one of {sorted(kinds)}"
            return
        case _:
            yield f"action.type: is not there; it is one of {sorted(kinds)}"
            return
    for error in Draft7Validator(whole).iter_errors(value):
        place = ".".join(map(str, error.absolute_path)) or "input"
        yield f"{place}: {error.message[:_SHOWN_CHARS]}"
