"""Writes docs/events.md from `event.py`, so that what is published is what is recorded. Run as a module.

Never describes an event by hand. `--check` is what the drift test does: compare, write nothing.
"""

import inspect
import sys
import typing
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from sandboxd import event
from sandboxd.event import Event
from sandboxd.sink.falco_event import derived_names, field_name
from sandboxd.sink.ocsf_kinds import ABOUT_ACTIONS, kind_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "events.md"
_HEAD = """\
# Events

Generated from `sandboxd/event.py` by `python -m sandboxd.audit.document`; do not edit.

Each record of the journal is one line of canonical JSON: `v` (schema version), `seq`, `boot`, `node`, `time`, `prev`
(SHA-256 of the line before, without its newline), `rule`, `priority`, `ids` and `fields`. A string over 512 characters
is cut, and `NAME_hmac` stands beside it: HMAC-SHA256 of all of it under a key that only this node has.

`ids` of every event, all strings: {ids}.

### As Falco JSON

The sinks that speak Falco's format send `time`, `rule`, `priority`, `source` (`sandboxd`), `hostname`, `output`, `tags`
and `output_fields`, which is flat. The last column below is a field's name there: Falco's own, or that of its gate for
coding agents, where one means the same; else one below `sandbox.`, `opa.`, `audit.` or `trace.`. Every event also has
{every};
`audit.digest` is the SHA-256 of the journal's line. Those of `process.*` have `proc.name`. An id that is empty is left
out; lists are joined with commas, pairs with `=`. A string over 512 bytes of UTF-8 is cut and ends in `…`, a half
surrogate pair becomes U+FFFD, and a number beyond 64 bits is text. `output` and `tags` never hold what a tenant wrote.

Every kind of event is accepted by falcosidekick's checks, cut nowhere. These are a port of them, made from its source
(`tests/falcosidekick_port.py`), since the Go module proxy does not serve the real one. Asked for it at `latest`,
`master`, `main`, `2.31.1`, `v2.31.1+incompatible`, `2.32.0` and `v2.32.0`, it answered each time:

    403 Forbidden
        server response: This module version is not available.

| id | Falco |
|---|---|
{rows}
"""


def render() -> str:
    parts = [
        _HEAD.format(
            ids=_quoted(field.name for field in fields(Event)),
            every=_quoted(derived_names("")),
            rows="\n".join(f"| `{field.name}` | `{field_name('', field.name)}` |" for field in fields(Event)),
        )
    ]
    common = {field.name for field in fields(Event)}
    for kind in _events():
        raised = "" if kind.raised is None else f", {kind.raised[0]} {kind.raised[1]}"
        parts.append(f"\n## {kind.rule}\n\nPriority {kind.priority}{raised}. In OCSF {_ocsf(kind.rule)}.")
        documented = inspect.getdoc(kind) or ""
        if not documented.startswith(f"{kind.__name__}("):  # what dataclass puts where there is no docstring
            parts.append(" " + " ".join(documented.split()))
        hints = typing.get_type_hints(kind)
        own = [field.name for field in fields(kind) if field.name not in common]
        rows = [f"| `{name}` | {_json_type(hints[name])} | `{field_name(kind.rule, name)}` |" for name in own]
        parts.append("\n\n| field | type | Falco |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "".join(parts)


def _ocsf(rule: str) -> str:
    if rule in ABOUT_ACTIONS:
        return "of the class of its `action`"
    kind = kind_of(rule, "")
    return f"{kind.of.name} ({kind.of.uid}): {kind.activity_name}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


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
