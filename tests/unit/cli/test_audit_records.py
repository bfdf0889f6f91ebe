import json

import pytest

from sandboxd.cli.audit_records import show_news, show_page, show_record, summary
from sandboxd.client.audit import AuditDamage, AuditNews, AuditPage, AuditRecord
from tests.fakes.audit_service import EVIL, record

LINE = record(5).line


def made(line: str = LINE) -> AuditRecord:
    return AuditRecord(5, None, f"policy.{EVIL}", "Warning", "d" * 64, line)


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "line", [LINE, LINE.replace("policy", EVIL), f"no JSON {EVIL}", LINE.replace("deny", "\udce9")]
)
def test_nothing_of_a_record_steers_a_terminal(line: str, as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    show_record(made(line), as_json=as_json)
    out = capsys.readouterr().out
    assert out.endswith("\n") and out.count("\n") == 1
    assert out[:-1].isprintable() and out.isascii()
    if as_json and line.startswith("{"):
        assert json.loads(out) == json.loads(line.replace("\x1b", "\\u001b").replace("\x07", "\\u0007"))


def test_the_journals_own_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_record(made(), as_json=True)
    assert capsys.readouterr().out == LINE + "\n"


def test_a_summary_has_whose_it_is_and_no_digests() -> None:
    text = summary(LINE)
    assert text.startswith(f"tenant=acme execution={'e' * 32} command=")
    assert "verdict=deny" in text and 'labels=[["a", "b"]]' in text and "sha256" not in text


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"ids": 1, "fields": 2}', "[" * 100_000, '{"ids":{},"fields":{"a":{}}}']
)
def test_a_summary_of_anything_is_a_text(line: str) -> None:
    assert isinstance(summary(line), str)


def test_a_summary_is_bounded() -> None:
    assert len(summary(json.dumps({"ids": {}, "fields": {f"f{n}": "x" * 500 for n in range(50)}}))) == 200


def test_damage_and_gaps_are_said_apart_from_the_records(capfd: pytest.CaptureFixture[str]) -> None:
    damage = AuditDamage(7, "s.jsonl", 99, f"its keys are {EVIL}")
    show_news(AuditNews((made(),), (damage,), 8, 3, caught_up=False), as_json=True)
    show_page(AuditPage((), (damage,), "12"), as_json=False)
    out, err = capfd.readouterr()
    assert out == LINE + "\n"
    assert "3 records before the next one are not there any more" in err
    assert err.count("DAMAGED: record 7 (s.jsonl at byte 99): its keys are evil\\x1b]0") == 2
    assert "go on with --page 12" in err and "\x1b" not in err
