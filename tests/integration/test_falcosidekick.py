"""A real daemon and the port of falcosidekick's checks: what is on record arrives there, however often it dies."""

import os
import time
from pathlib import Path

import pytest

from sandboxd.client import SandboxdError
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.falcosidekick_server import Entry, entries, falcosidekick_port, free_port

SECONDS = 120.0
MODE = Mode.ROOT if os.geteuid() == 0 else Mode.ROOTLESS


def until_all_accepted(daemon: RunningDaemon, ledger: Path) -> list[Entry]:
    """The ledger, once every record of the journal is in it."""
    deadline = time.monotonic() + SECONDS
    while missing := {record["seq"] for record in daemon.journal()} - {entry.seq for entry in entries(ledger)}:
        assert time.monotonic() < deadline, f"never accepted: {sorted(map(str, missing))}"
        time.sleep(0.1)
    return entries(ledger)


def out_of_order(found: list[Entry]) -> list[int]:
    """Sequence numbers that were first accepted after a later one of their execution."""
    first: dict[int, Entry] = {}
    for entry in found:
        first.setdefault(entry.seq, entry)
    latest: dict[str, int] = {}
    wrong = []
    for entry in first.values():
        if entry.seq < latest.get(entry.execution, 0):
            wrong.append(entry.seq)
        latest[entry.execution] = entry.seq
    return wrong


def test_nothing_on_record_is_missing_after_falcosidekick_was_killed_under_load(tmp_path: Path) -> None:
    ledger, output = tmp_path / "ledger", tmp_path / "output"
    port = free_port()
    sink = f"sinks: [{{type: falcosidekick, url: 'http://127.0.0.1:{port}', required: true}}]\n"
    with falcosidekick_port("--ledger", str(output)) as behind:
        arguments = ("--ledger", str(ledger), "--webhook", behind.url)
        with (
            falcosidekick_port(*arguments, port=port) as running,
            start_daemon(MODE, sink) as daemon,
            daemon.client() as client,
        ):
            client.run(["/bin/echo", "one"])
            with pytest.raises(SandboxdError):
                client.run(["/bin/true"], profile="none")
            until_all_accepted(daemon, ledger)
            before = {entry.seq for entry in entries(ledger)}
            client.run(["/bin/echo", "two"])
            running.kill()
            for _ in range(5):
                client.run(["/bin/echo", "three"])
            with falcosidekick_port(*arguments, port=port):
                client.run(["/bin/echo", "four"])
                found = until_all_accepted(daemon, ledger)
        assert out_of_order(found) == []
        assert {entry.rule for entry in found} >= {"daemon.started", "execution.requested", "execution.ended"}
        passed_on = {entry.seq for entry in entries(output)}
        assert passed_on >= before  # what falcosidekick itself loses by dying is lost there, behind its answer


def test_a_daemon_does_not_start_where_nobody_takes_what_must_be_taken() -> None:
    sink = f"sinks: [{{type: falcosidekick, url: 'http://127.0.0.1:{free_port()}', required: true}}]\n"
    wanted = "required sink 'falcosidekick' does not accept"
    with pytest.raises(AssertionError, match=wanted) as failed, start_daemon(MODE, sink):
        pass
    assert "Unclosed" not in str(failed.value)
