import json
from datetime import UTC, datetime

import pytest

from sandboxd.cli.audit_show import show_key, show_sinks
from sandboxd.client.audit import AuditKey, AuditSink
from tests.fakes.audit_service import EVIL

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SINK = AuditSink("siem", "syslog", True, "failing", 1200, 2, 30, 4.5, 5, 3, 7, 0, EVIL, WHEN, WHEN)
WELL = AuditSink("well", "stdout", False, "ok", 5, 0, 0, 0.0, 0, 0, 0, 0, "", None, None)


def test_a_table_tells_what_is_behind_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    show_sinks([SINK, WELL], as_json=False)
    out = capsys.readouterr().out
    for expected in ("30, 4.500 s", "2 filtered, 7 lost", "2026-01-02 03:04:05Z evil\\x1b", "failing", "1200"):
        assert expected in out
    assert "\x1b" not in out and "\u202e" not in out


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_sinks([SINK], as_json=True)
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["last_error"], told["last_success_at"], told["refused_records"]) == (EVIL, WHEN.isoformat(), 0)


def test_a_key_can_be_kept_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show_key(AuditKey("-----BEGIN\nabc\n-----END\n", "k"), as_json=False)
    assert capsys.readouterr().out == "-----BEGIN\nabc\n-----END\n"
    show_key(AuditKey("p", "k"), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"public_key_pem": "p", "key_id": "k"}
