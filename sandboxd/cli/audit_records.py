"""What `sandboxctl audit query` and `tail` print: a line for each record, or the journal's own lines for programs.

A record is full of what programs and callers chose: nothing of it reaches a terminal raw, in JSON neither.
"""

import json
import re
import sys
from collections.abc import Iterable

from sandboxd.cli.printable import printable
from sandboxd.cli.run import say
from sandboxd.client.audit import AuditDamage, AuditNews, AuditPage, AuditRecord

_SUMMARY_CHARS, _VALUE_CHARS = 200, 80
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NOT_PLAIN = re.compile(r"[^ -~]")


def show_page(page: AuditPage, *, as_json: bool) -> None:
    for record in page.records:
        show_record(record, as_json=as_json)
    _show_damages(page.damages)
    if page.next_page_token:
        say(f"there may be more; go on with --page {page.next_page_token}")


def show_news(news: AuditNews, *, as_json: bool) -> None:
    """At once."""
    if news.missing:
        say(f"{news.missing} records before the next one are not there any more: retention, or somebody, took them")
    for record in news.records:
        show_record(record, as_json=as_json)
    _show_damages(news.damages)
    sys.stdout.flush()


def show_record(record: AuditRecord, *, as_json: bool) -> None:
    if as_json:
        print(_NOT_PLAIN.sub(_escaped, record.line))  # noqa: T201
        return
    time = record.time.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z" if record.time is not None else "-"
    print(printable(f"{record.seq} {time} {record.priority} {record.rule} {summary(record.line)}".rstrip()))  # noqa: T201


def _escaped(found: re.Match[str]) -> str:
    return "\\u007f" if found[0] == "\x7f" else json.dumps(found[0])[1:-1]


def summary(line: str) -> str:
    """Whose it is, and what is most worth seeing of it."""
    try:
        document = json.loads(line)
        ids, fields = dict(document["ids"]), dict(document["fields"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "(not a record of ours)"
    shown = (("tenant", "tenant"), ("subject", "by"), ("execution_id", "execution"))
    said = [f"{name}={ids[key]}" for key, name in shown if ids.get(key)]
    said += [f"{name}={_value(value)}" for name, value in fields.items() if not _is_noise(value)]
    text = " ".join(said)
    return text if len(text) <= _SUMMARY_CHARS else text[: _SUMMARY_CHARS - 1] + "…"


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, str) and (" " in text or not text):
        text = json.dumps(text, ensure_ascii=False)
    return text if len(text) <= _VALUE_CHARS else text[: _VALUE_CHARS - 1] + "…"


def _is_noise(value: object) -> bool:
    return value in ("", [], None) or (isinstance(value, str) and _DIGEST.fullmatch(value) is not None)


def _show_damages(damages: Iterable[AuditDamage]) -> None:
    """On stderr: it is no record."""
    for damage in damages:
        where = f"{damage.segment} at byte {damage.offset}"
        say(f"DAMAGED: record {damage.seq} ({where}): {damage.reason}; see: sandboxctl audit verify")
