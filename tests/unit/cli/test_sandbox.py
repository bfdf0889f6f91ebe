"""`sandboxctl sandbox`, each command as a process before a daemon that does nothing."""

import json

import pytest

from sandboxd.rpc.v1 import node_pb2, sandbox_pb2
from tests.fakes.server import EXECUTION_ID, FakeDaemon
from tests.unit.cli.conftest import Sandboxctl


@pytest.mark.parametrize(
    ("command", "measure"),
    [
        ("freeze", node_pb2.MEASURE_FREEZE),
        ("thaw", node_pb2.MEASURE_THAW),
        ("kill", node_pb2.MEASURE_KILL),
        ("quarantine", node_pb2.MEASURE_QUARANTINE),
        ("lift", node_pb2.MEASURE_LIFT),
    ],
)
def test_each_command_asks_for_its_measure(
    sandboxctl: Sandboxctl, daemon: FakeDaemon, command: str, measure: int
) -> None:
    done = sandboxctl("sandbox", command, "--subject", "uid:7", "-m", "why")
    assert done.returncode == 0 and EXECUTION_ID.encode() in done.stdout and b"frozen" in done.stdout
    (asked,) = daemon.responses
    assert (asked.measure, asked.target.subject, asked.comment) == (measure, "uid:7", "why")


def test_id_may_be_of_the_execution_or_of_its_sandbox(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.executions = (sandbox_pb2.Execution(execution_id="e" * 32, sandbox_id="5" * 32),)
    for found in ("e" * 32, "5" * 32):
        told = json.loads(sandboxctl("sandbox", "freeze", found, "--json").stdout)
        assert told == [{"execution_id": EXECUTION_ID, "effect": "frozen"}]
    first, second = daemon.responses
    assert (first.target.execution_id, second.target.sandbox_id) == ("e" * 32, "5" * 32)


@pytest.mark.parametrize("arguments", [(), ("a", "--tenant", "local"), ("--tenant", "local", "--subject", "uid:7")])
def test_exactly_one_is_named(sandboxctl: Sandboxctl, daemon: FakeDaemon, arguments: tuple[str, ...]) -> None:
    done = sandboxctl("sandbox", "kill", *arguments)
    assert (done.returncode, b"name one" in done.stderr) == (125, True)
    assert daemon.responses == []


def test_quarantines_are_listed_and_what_others_wrote_reaches_no_terminal(sandboxctl: Sandboxctl) -> None:
    shown = sandboxctl("sandbox", "quarantines")
    assert b"uid:1000" in shown.stdout and b"1970-01-01 00:16:40Z" in shown.stdout and b"\x1b" not in shown.stdout
    (one,) = json.loads(sandboxctl("sandbox", "quarantines", "--json").stdout)
    assert (one["tenant"], one["by"], one["comment"]) == ("local", "uid:0", "evil\x1b]0;x\x07")
