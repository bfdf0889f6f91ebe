import json

import pytest

from sandboxd.cli import approvals
from sandboxd.client import convert
from tests.fakes.server import approval

FOUND = convert.approval(approval())


def test_a_table_and_a_line_hold_no_raw_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    approvals.show_approvals([FOUND], as_json=False)
    approvals.show_approval(FOUND, as_json=False)
    approvals.follow([FOUND], as_json=False)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    assert out.count(FOUND.approval_id) == 3
    assert "any operator but who asked" not in out


def test_json_holds_everything_and_times_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    approvals.show_approval(FOUND, as_json=True)
    one = json.loads(capsys.readouterr().out)
    approvals.show_approvals([FOUND], as_json=True)
    assert json.loads(capsys.readouterr().out) == [one]
    approvals.follow([FOUND], as_json=True)
    assert json.loads(capsys.readouterr().out) == one
    assert (one["state"], one["expires_at"], one["quorum"]) == ("pending", "1970-01-01T00:31:40+00:00", 2)
    assert one["votes"][0]["voted_at"] == "1970-01-01T00:00:00+00:00"
    assert set(one) == set(FOUND.__slots__)


def test_without_named_approvers_any_operator_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    anybody = approval()
    del anybody.approvers[:]
    approvals.show_approval(convert.approval(anybody), as_json=False)
    assert "any operator but who asked" in capsys.readouterr().out
