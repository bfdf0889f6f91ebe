"""What `sandboxctl audit sinks` and `key` print: a table or the key itself for people, JSON for programs."""

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sandboxd.cli import tables
from sandboxd.cli.printable import printable
from sandboxd.client.audit import AuditKey, AuditSink


def show_sinks(sinks: Sequence[AuditSink], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(sink, dict_factory=_plain) for sink in sinks], indent=2))  # noqa: T201
        return
    tables.show(
        "",
        ("sink", "type", "required", "state", "sent", "behind", "retries", "not sent", "last success", "last error"),
        [
            (
                s.name, s.type, "yes" if s.required else "no", s.state, str(s.sent_records), _behind(s), str(s.retries),
                _not_sent(s), _time(s.last_success_at), _error(s),
            )
            for s in sinks
        ],
    )  # fmt: skip


def show_key(key: AuditKey, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(key), indent=2))  # noqa: T201
    else:
        print("\n".join(printable(line) for line in key.public_key_pem.splitlines()))  # noqa: T201


def _behind(sink: AuditSink) -> str:
    return f"{sink.lag_records}, {tables.seconds(sink.lag_seconds)}" if sink.lag_records else "-"


def _not_sent(sink: AuditSink) -> str:
    """What it will never get, and why."""
    counts = (("filtered", sink.filtered_records), ("lost", sink.lost_records), ("refused", sink.refused_records))
    return ", ".join(f"{count} {name}" for name, count in counts if count) or "-"


def _error(sink: AuditSink) -> str:
    return f"{_time(sink.last_error_at)} {sink.last_error}" if sink.last_error_at is not None else "-"


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment is not None else "-"


def _plain(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in pairs}
