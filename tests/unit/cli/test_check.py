import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.cli import check
from sandboxd.config import load
from sandboxd.errors import RuntimeFailed
from sandboxd.host import check as host_check
from sandboxd.host.check import CheckReport, Finding, Row, Unstartable
from sandboxd.host.probed import Probed
from sandboxd.model import Guarantee

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "check.md"
ROWS = (Row("cgroup", "none", "limits are rlimits", Finding.DEGRADED),)
REPORTS = {
    0: CheckReport("root", ROWS, ("default", "strict"), ()),
    1: CheckReport("rootless-single", ROWS, ("default", "strict"), (Unstartable("strict", "no cgroup\x1b[2J"),)),
    2: CheckReport("none", ROWS, (), ()),
}


@pytest.mark.parametrize(("code", "said"), [(0, "every profile"), (1, "refused here: strict"), (2, "nothing can run")])
def test_table_ends_with_the_verdict(
    code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "check", lambda paths, state: REPORTS[code])
    assert check.report(load(None), as_json=False) == code
    printed = capsys.readouterr().out
    assert said in printed.splitlines()[-1]
    assert "limits are rlimits" in printed
    assert "\x1b[2J" not in printed


def test_json_holds_the_whole_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "check", lambda paths, state: REPORTS[1])
    assert check.report(load(None), as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 1
    assert (told["mode"], told["exit_code"], told["rows"][0]["state"]) == ("rootless-single", 1, "degraded")
    assert told["unstartable"][0]["profile"] == "strict"


def test_json_has_the_keys_that_are_documented(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "check", lambda paths, state: REPORTS[1])
    check.report(load(None), as_json=True)
    table = DOCUMENT.read_text().partition("The features are")[0]
    documented = dict(re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \|", table, re.MULTILINE))
    assert dict(_keys(json.loads(capsys.readouterr().out))) == documented


def _keys(value: dict[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Every key with its type, in the words of the document."""
    for key, item in value.items():
        match item:
            case [dict(first), *_]:
                yield above + key, "list of objects"
                yield from _keys(first, f"{above}{key}[].")
            case list():
                yield above + key, "list of strings"
            case _:
                yield above + key, {int: "number", str: "string"}[type(item)]


def test_document_names_every_feature_and_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of a node on which the probe works, and of one where it does not; guarantees are there by their ids."""
    found = {row.feature for row in host_check.check((), tmp_path).rows}
    monkeypatch.setattr(host_check, "probe", failing)
    found |= {row.feature for row in host_check.check((), tmp_path).rows}
    text = DOCUMENT.read_text()
    assert {feature for feature in found - set(Guarantee) if f"`{feature}`" not in text} == set()
    assert all(f"`{state}`" in text for state in Finding)


def failing() -> Probed:
    raise RuntimeFailed("the probe did not run")
