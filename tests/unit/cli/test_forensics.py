"""What a node sends is written down, under names that are ours alone."""

import os
from pathlib import Path

import pytest

from sandboxd.cli import forensics
from sandboxd.cli.mistake import Mistake
from sandboxd.client.response import Target
from sandboxd.client.sync import Client
from sandboxd.rpc.v1 import sandbox_pb2
from tests.fakes.server import FakeDaemon, serving

BY_EXECUTION = Target(execution_id="e" * 32)


def collect(daemon: FakeDaemon, directory: Path, target: Target = BY_EXECUTION, workspace_bytes: int = 7) -> None:
    with serving(daemon, directory.with_name("s")) as address, Client(address) as client:
        forensics.collect(client, target, directory, workspace_bytes)


def test_each_file_is_whole_and_the_operators_alone(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.evidence = (("processes.json", b"[1"), ("processes.json", b"]"), ("workspace.tar", b"\xff\0"))
    made = tmp_path / "made"
    before = os.umask(0)
    try:
        collect(daemon, made)
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in made.iterdir()} == {
        "processes.json": 0o600,
        "workspace.tar": 0o600,
        "events.jsonl": 0o600,
    }
    assert (made / "processes.json").read_bytes() == b"[1]"
    (asked,) = daemon.examined
    assert (asked.target.execution_id, asked.workspace_bytes) == ("e" * 32, 7)


def test_events_are_of_the_execution_also_where_its_sandbox_is_named(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.executions = (sandbox_pb2.Execution(execution_id="e" * 32, sandbox_id="5" * 32),)
    collect(daemon, tmp_path / "made", Target(sandbox_id="5" * 32))
    assert (tmp_path / "made" / "events.jsonl").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "evil", "", "processes.json/x", "processes.json\0"])
def test_no_name_from_the_node_becomes_a_path(daemon: FakeDaemon, tmp_path: Path, name: str) -> None:
    daemon.evidence = ((name, b"x"),)
    with pytest.raises(Mistake, match="does not know"):
        collect(daemon, tmp_path / "made")
    assert [path.name for path in tmp_path.rglob("*") if path.name != "s"] == ["made"]


def test_directory_that_is_there_or_a_link_in_its_place_is_not_taken(daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for name in ("there", "link"):
        with pytest.raises(Mistake, match="name one"):
            collect(daemon, tmp_path / name)
    assert list((tmp_path / "there").iterdir()) == []
    assert daemon.examined == []
