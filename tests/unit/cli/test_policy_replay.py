"""`sandboxctl policy replay` over a record that the daemon's own parts wrote."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sandboxd.audit.recorder import Recorder
from sandboxd.cli.mistake import Mistake
from sandboxd.cli.policy_replay import run
from sandboxd.model import Decision, Verdict
from sandboxd.span import Span
from tests.bundles import public_file, release
from tests.fakes.policy import CALLER, question, start

NEW = """package sandboxd

import rego.v1

default decision := true

decision := false if input.action.argv[0] == "/bin/b"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Three allows: twice the same question, and another."""
    asyncio.run(_record(tmp_path / "state"))
    return tmp_path / "state"


async def _record(state: Path) -> None:
    recorder = Recorder.open(state, "n", "b", "write")
    for program in ("/bin/a", "/bin/b", "/bin/b"):
        decision = Decision(Verdict.ALLOW, (), "old", input_json=question(start((program,))).document)
        await Span(recorder, CALLER, "e", "s" * 32, "").decided("execution.start", decision, "fake")
    await recorder.close()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "p.rego").write_text(NEW)
    return tmp_path / "new"


def told(state: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run([bundle], "7d", state, None, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_what_would_change_is_told_with_its_count_and_document(
    state: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = told(state, bundle, capsys)
    assert code == 1
    assert found["decisions"] == {"changed": 2, "same": 1}
    (change,) = found["changes"]
    assert (change["then"], change["now"], change["decisions"]) == ("allow", "deny", 2)
    assert change["now_reason_codes"] == ["policy_denied"]
    (pack,) = (state / "documents").iterdir()
    assert change["input_sha256"].encode() in pack.read_bytes()


def test_table_says_the_same_and_names_an_example(
    state: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([bundle], "7d", state, None, as_json=False) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("3 decisions of the last 7d, decided again by ")
    assert "1 same, 2 changed, 0 undecidable, 0 missing, 0 undecided" in shown
    assert re.search(r"allow → deny +execution\.start +policy_denied +2 +[0-9a-f]{64}", shown)


def test_policy_that_agrees_with_the_record_exits_0(
    state: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "p.rego").write_text("package sandboxd\n\ndecision := true\n")
    code, found = told(state, bundle, capsys)
    assert (code, found["decisions"], found["changes"]) == (0, {"same": 3}, [])


def test_documents_that_are_gone_are_missing_and_no_change(
    state: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pack,) = (state / "documents").iterdir()
    pack.unlink()
    code, found = told(state, bundle, capsys)
    assert (code, found["decisions"]) == (0, {"missing": 3})


def test_state_that_is_none_is_told(tmp_path: Path, state: Path, bundle: Path) -> None:
    with pytest.raises(Mistake, match=r"there is no record in .*absent"):
        run([bundle], "7d", tmp_path / "absent", None, as_json=True)
    (state / "journal" / "00000000000000000001.jsonl").write_text('{"rule":"policy.decided"}\n')
    with pytest.raises(Mistake, match=r"is damaged: 00000000000000000001\.jsonl: "):
        run([bundle], "7d", state, None, as_json=True)
    journal = state / "journal"
    journal.rename(state / "moved")
    journal.symlink_to(state / "moved")
    with pytest.raises(Mistake, match="cannot read"):
        run([bundle], "7d", state, None, as_json=True)


@pytest.mark.parametrize("since", ["", "7", "d", "-1d", "1w", "7d ago", "99999999d"])
def test_time_that_is_none_is_refused(state: Path, bundle: Path, since: str) -> None:
    with pytest.raises(Mistake, match="is no time; write for example 90m, 12h or 7d"):
        run([bundle], since, state, None, as_json=True)


def test_signed_bundle_replays_with_its_key(tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([release(tmp_path / "b.tar.gz", 1)], "7d", state, public_file(tmp_path), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == "r1"
    assert not (state / "policy").exists()  # it came into force nowhere
