"""Verification of a directory, without a node; by a node it is in test_audit."""

import json
import shutil
from pathlib import Path

import pytest

from sandboxd.audit.key import KEYS, PUBLIC, open_key
from sandboxd.audit.recorder import Recorder
from sandboxd.cli.audit_verify import BAD, GOOD, of_directory
from sandboxd.cli.mistake import Mistake
from tests.fakes.events import violated
from tests.unit.audit.looked_up import rewritten


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    recorder = Recorder.open(tmp_path / "state", "n", "b", "write")
    for number in range(20):
        await recorder.record(violated(str(number)))
    await recorder.close()
    return tmp_path / "state"


def key(state: Path) -> Path:
    return state / KEYS / PUBLIC


def test_a_copy_with_its_key_is_good(state: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(state / "journal", tmp_path / "copy")
    assert of_directory(tmp_path / "copy", key(state), as_json=False) == GOOD
    out, err = capfd.readouterr()
    assert "good" in out and "checkpoints" in out and err == ""
    assert of_directory(tmp_path / "copy", key(state), as_json=True) == GOOD
    told = json.loads(capfd.readouterr().out)
    assert (told["ok"], told["first_bad"], told["first_seq"]) == (True, None, 1)
    assert told["records"] == told["last_seq"] > 20


def test_the_first_bad_record_is_named(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (segment,) = (state / "journal").glob("*.jsonl")
    rewritten(segment, 6, node="x")
    assert of_directory(state / "journal", key(state), as_json=False) == BAD
    out, _ = capfd.readouterr()
    assert "BAD" in out and segment.name in out and "edited" in out
    assert of_directory(state / "journal", key(state), as_json=True) == BAD
    told = json.loads(capfd.readouterr().out)
    assert (told["ok"], told["first_bad"]["seq"], told["first_bad"]["line"]) == (False, 7, 7)


def test_another_key_is_bad(state: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_key(tmp_path / "other")
    assert of_directory(state / "journal", key(tmp_path / "other"), as_json=True) == BAD
    assert json.loads(capfd.readouterr().out)["first_bad"]["fault"] == "wrong_key"


def test_without_a_key_it_is_said_what_was_not_looked_at(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert of_directory(state / "journal", None, as_json=False) == GOOD
    assert "signatures were NOT checked" in capfd.readouterr().err


def test_what_is_no_journal_is_never_good(state: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", state):
        with pytest.raises(Mistake, match="there is no journal in"):
            of_directory(path, None, as_json=False)
    with pytest.raises(Mistake, match=r"cannot read the journal in .*none'"):
        of_directory(tmp_path / "none", None, as_json=False)
    for segment in (state / "journal").glob("*.jsonl"):
        segment.unlink()
    assert of_directory(state / "journal", key(state), as_json=True) == BAD, "its last checkpoint is still there"


def test_a_key_that_cannot_be_used_is_said(state: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="cannot read the key"):
        of_directory(state / "journal", tmp_path / "none", as_json=False)
    (tmp_path / "key").write_text("no key")
    with pytest.raises(Mistake, match=r"cannot use the key .*: it is no public key in PEM; print the node's"):
        of_directory(state / "journal", tmp_path / "key", as_json=False)
