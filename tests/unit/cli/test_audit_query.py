"""Queries of a directory, without a node; those of a node are in test_audit."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandboxd.cli.audit_query import DAMAGED, WHOLE, query_directory, wanted
from sandboxd.cli.mistake import Mistake
from sandboxd.client.audit import AuditFilter
from tests.unit.audit.looked_up import content, write


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    records = [
        content(priority="Warning" if number % 2 else "Notice", tenant="acme", verdict="deny", command=f"run {number}")
        for number in range(30)
    ]
    write(tmp_path / "journal", [records[:12], records[12:]])
    return tmp_path / "journal"


def asked(**options: str) -> AuditFilter:
    names = ("since", "until", "tenant", "execution", "sandbox", "rule", "verdict", "priority", "text")
    return wanted(*(options.get(name, "") for name in names))


def seqs(
    capsys: pytest.CaptureFixture[str], journal: Path, what: AuditFilter, limit: int = 100, page: str = ""
) -> Sequence[int]:
    assert query_directory(journal, what, limit, page, oldest_first=True, as_json=True) == WHOLE
    return [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()]


def test_a_copied_directory_is_looked_through(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seqs(capsys, journal, asked()) == list(range(1, 31))
    assert seqs(capsys, journal, asked(text="RUN 1", priority="warning", rule="policy.*")) == [2, 12, 14, 16, 18, 20]
    assert seqs(capsys, journal, asked(since="2023-11-14T22:13:45Z", until="2023-11-14T22:13:47Z")) == [26, 27]
    assert seqs(capsys, journal, asked(since="7d")) == []
    assert len(list(journal.parent.rglob("*"))) == 3, "nothing is left behind"


def test_a_limit_is_kept_and_names_the_page_to_go_on_with(journal: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert query_directory(journal, asked(), 13, "", oldest_first=False, as_json=False) == WHOLE
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == [str(seq) for seq in range(30, 17, -1)]
    assert err.strip().endswith("--page 18")
    assert query_directory(journal, asked(), 100, "18", oldest_first=False, as_json=False) == WHOLE
    assert len(capfd.readouterr().out.splitlines()) == 17


def test_damage_is_an_exit_code_and_not_the_end(journal: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = sorted(journal.iterdir())[0]
    lines = first.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b'"v":1', b'"v":2')
    first.write_bytes(b"\n".join(lines))
    assert query_directory(journal, asked(), 100, "", oldest_first=True, as_json=True) == DAMAGED
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 29 and "DAMAGED: record 5" in err


def test_what_cannot_be_meant_is_said(journal: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="--priority 'loud' is none; one of Emergency, "):
        asked(priority="loud")
    with pytest.raises(Mistake, match="--text has 513 characters"):
        asked(text="x" * 513)
    with pytest.raises(Mistake, match="--since 'x' is no time"):
        asked(since="x")
    with pytest.raises(Mistake, match="--page 'x' is none"):
        query_directory(journal, asked(), 1, "x", oldest_first=True, as_json=True)
    with pytest.raises(Mistake, match=r"cannot read the journal in .*none': No such file"):
        query_directory(tmp_path / "none", asked(), 1, "", oldest_first=True, as_json=True)


def test_a_filter_of_the_command_line_is_the_sdks() -> None:
    given = asked(since="2026-01-02T03:04:05.000006Z", execution="e", sandbox="s", priority="warning", verdict="deny")
    assert given == AuditFilter(
        since=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), execution_id="e", sandbox_id="s",
        minimum_priority="Warning", verdict="deny",
    )  # fmt: skip
