"""A state directory that is full for a while: what runs meanwhile ends as the configuration says, and nothing of it is
lost silently."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxd.audit.key import parse_public, public_pem
from sandboxd.audit.verify import verify
from sandboxd.client import Accepted, AuditUnavailable, Chunk, Client, EndReason, Result
from tests import proc
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.skips import need_root

# The last argument is the configuration, which lies beside the state directory.
SMALL_DISK = 'for c; do :; done; s=${c%/*}/state; mkdir "$s"; mount -t tmpfs -o size=1m small "$s"; exec "$@"'
WITHIN = ("/usr/bin/unshare", "--mount", "/bin/sh", "-ec", SMALL_DISK, "sh")
SLEEP = ["/bin/sh", "-c", "echo up; exec sleep 1000"]


class Running:
    """One execution that prints and sleeps, followed by a thread."""

    def __init__(self, client: Client) -> None:
        self.execution_id = ""
        self.result: Result | None = None
        self.up = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(client,))
        self._thread.start()
        assert self.up.wait(60)

    def end(self) -> Result:
        self._thread.join(60)
        assert self.result is not None
        return self.result

    def _follow(self, client: Client) -> None:
        for event in client.execute(SLEEP):
            match event:
                case Accepted():
                    self.execution_id = event.execution_id
                case Chunk():
                    self.up.set()
                case Result():
                    self.result = event


def state_of(daemon: RunningDaemon) -> Path:
    """As seen from outside of its mount namespace."""
    return Path(f"/proc/{proc.daemon_pid(daemon.process.pid)}/root{daemon.state_dir}")


@contextlib.contextmanager
def full(daemon: RunningDaemon, client: Client) -> Iterator[None]:
    """No room until the block ends, and the daemon knows. The last page of the journal may take a record yet."""
    filling = state_of(daemon) / "filling"
    with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with pytest.raises(AuditUnavailable):
        for _ in range(100):  # so may that of the documents
            client.run(["/bin/true"])
    yield
    filling.unlink()


def records(daemon: RunningDaemon) -> list[dict[str, object]]:
    segments = sorted((state_of(daemon) / "journal").glob("*.jsonl"))
    return [json.loads(line) for segment in segments for line in segment.read_bytes().splitlines()]


def test_what_runs_on_a_full_disk_goes_on_and_its_end_is_on_record_afterwards() -> None:
    def still_there(running: Running, client: Client) -> Result:
        assert [one.execution_id for one in client.executions(living_only=True)] == [running.execution_id]
        client.kill(running.execution_id)
        return running.end()

    _runs_into_a_full_disk("", still_there)


def test_what_runs_on_a_full_disk_is_ended_where_that_is_configured() -> None:
    _runs_into_a_full_disk("audit: {on_failure: kill}\n", lambda running, client: running.end())


def _runs_into_a_full_disk(settings: str, ended: Callable[[Running, Client], Result]) -> None:
    need_root()
    with start_daemon(Mode.ROOT, settings, within=WITHIN) as daemon, daemon.client() as client:
        running = Running(client)
        with full(daemon, client):
            assert ended(running, client).end_reason is EndReason.KILLED

        def found() -> list[dict[str, object]]:
            own = [record for record in records(daemon) if running.execution_id in str(record["ids"])]
            return [record for record in own if record["rule"] == "execution.ended"]

        proc.until(lambda: len(found()) == 1, "its end is on record, and nobody had to ask for anything")
        assert found()[0]["fields"]["end_reason"] == "KILLED"  # type: ignore[index]
        proc.until(lambda: any(record["rule"] == "journal.gap" for record in records(daemon)), "so is what was refused")
        state = state_of(daemon)
        assert verify(state / "journal", parse_public(public_pem(state))).ok
