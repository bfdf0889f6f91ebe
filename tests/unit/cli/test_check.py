import json

import pytest

from sandboxd.cli import check
from sandboxd.config import load
from sandboxd.host.check import CheckReport, Finding, Row, Unstartable

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
    assert (told["mode"], told["exit_code"], told["rows"][0]["state"]) == ("rootless-single", 1, "degraded")
    assert told["unstartable"][0]["profile"] == "strict"
