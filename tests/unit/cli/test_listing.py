import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sandboxd.cli import listing
from sandboxd.client import EndReason, Execution, ExecutionState, Result, Usage

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENDED = Execution(
    "e1",
    "s1",
    "uid:0",
    "python",
    "process",
    "x",
    (("k", "v"),),
    ExecutionState.ENDED,
    STARTED,
    STARTED,
    Result("e1", EndReason.WALL_TIMEOUT, None, 9, Usage()),
)


def test_ended_execution_is_listed_with_why_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    listing.show_executions([ENDED], as_json=False)
    printed = capsys.readouterr().out
    assert "WALL_TIMEOUT" in printed
    assert "2026-01-02 03:04:05Z" in printed


@pytest.mark.parametrize(
    ("frozen", "held", "state"),
    [
        (False, False, "running"),
        (True, False, "frozen"),
        (True, True, "frozen, held"),
        (False, True, "running, held"),
    ],
)
def test_what_stands_still_is_listed_as_such(
    frozen: bool, held: bool, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    execution = replace(ENDED, state=ExecutionState.RUNNING, ended_at=None, result=None, frozen=frozen, held=held)
    listing.show_executions([execution], as_json=True)
    told = json.loads(capsys.readouterr().out)[0]
    assert (told["state"], told["frozen"], told["held"]) == ("running", frozen, held)
    listing.show_executions([execution], as_json=False)
    assert re.search(rf"e1\W+{state}\W+python", capsys.readouterr().out)


def test_json_of_an_execution_has_times_and_labels(capsys: pytest.CaptureFixture[str]) -> None:
    listing.show_executions([ENDED], as_json=True)
    told = json.loads(capsys.readouterr().out)[0]
    assert (told["started_at"], told["labels"], told["signal"]) == ("2026-01-02T03:04:05+00:00", {"k": "v"}, 9)
