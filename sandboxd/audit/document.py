"""Writes docs/events.md from `event.py`, so that what is published is what is recorded. Run as a module.

Never describes an event by hand. `--check` is what the drift test does: compare, write nothing.
"""

import inspect
import sys
import typing
from dataclasses import fields
from pathlib import Path

from sandboxd import event
from sandboxd.event import Event

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "events.md"
_HEAD = """\
# Events

Generated from `sandboxd/event.py` by `python -m sandboxd.audit.document`; do not edit.

Each record of the journal is one line of canonical JSON: `v` (schema version), `seq`, `boot`, `node`, `time`, `prev`
(SHA-256 of the line before, without its newline), `rule`, `priority`, `ids` and `fields`. A string over 512 characters
is cut, and `NAME_hmac` stands beside it: HMAC-SHA256 of all of it under a key that only this node has.

`ids` of every event: {ids}.
"""


def render() -> str:
    parts = [_HEAD.format(ids=", ".join(f"`{field.name}`" for field in fields(Event)))]
    common = {field.name for field in fields(Event)}
    for kind in _events():
        raised = "" if kind.raised is None else f", {kind.raised[0]} {kind.raised[1]}"
        parts.append(f"\n## {kind.rule}\n\nPriority {kind.priority}{raised}.")
        documented = inspect.getdoc(kind) or ""
        if not documented.startswith(f"{kind.__name__}("):  # what dataclass puts where there is no docstring
            parts.append(" " + " ".join(documented.split()))
        hints = typing.get_type_hints(kind)
        own = [field.name for field in fields(kind) if field.name not in common]
        rows = [f"| `{name}` | {_json_type(hints[name])} |" for name in own]
        parts.append("\n\n| field | type |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "".join(parts)


def _events() -> list[type[Event]]:
    """In the order of the file."""
    kinds = [kind for kind in vars(event).values() if isinstance(kind, type) and issubclass(kind, Event)]
    return [kind for kind in kinds if kind is not Event]


def _json_type(hint: object) -> str:
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        return f"list of {_json_type(items[0])}" if items[-1] is Ellipsis else f"[{', '.join(map(_json_type, items))}]"
    if arguments := typing.get_args(hint):
        return " or ".join(_json_type(argument) for argument in arguments)
    names: dict[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return names[hint]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        return 0 if DOCUMENT.read_text() == render() else 1
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
