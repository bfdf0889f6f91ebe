"""The record of a real daemon: found and followed over its death and restart, and proved; an edited byte is named.

All of it through the client and the command line, as whoever the daemon runs as.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

from sandboxd.client import AuditFilter, AuditNews, Client, SandboxdError
from tests import proc, restart
from tests.daemon import CHECKOUT, Mode, RunningDaemon, start_daemon, wait_until_it_answers
from tests.skips import need_root


def sandboxctl(daemon: RunningDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    main = "from sandboxd.cli import sandboxctl_main; sandboxctl_main()"
    return subprocess.run(
        [sys.executable, "-c", main, *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "SANDBOXD_ADDRESS": daemon.address},
        capture_output=True,
        text=True,
        timeout=300,
    )


def seqs(news: list[AuditNews]) -> list[int]:
    return [record.seq for piece in news for record in piece.records]


class Follower(threading.Thread):
    """Follows from a record on, until the node goes away."""

    def __init__(self, daemon: RunningDaemon, from_seq: int) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._from_seq = from_seq
        self.news: list[AuditNews] = []
        self.end: SandboxdError | None = None

    def run(self) -> None:
        with self._daemon.client() as client:
            try:
                for piece in client.tail_audit(AuditFilter(), self._from_seq):
                    self.news.append(piece)
            except SandboxdError as error:
                self.end = error


def kill_daemon(daemon: RunningDaemon) -> None:
    (victim,) = [one.pid for one in proc.descendants(daemon.process.pid) if "sandboxd.daemon" in one.argv]
    restart.kill(victim)
    proc.until(lambda: victim not in proc.processes(), "the daemon is dead")
    wait_until_it_answers(daemon)


def test_what_ran_is_found_by_whatever_is_known_of_it(daemon: RunningDaemon, client: Client) -> None:
    needle = secrets.token_hex(8)
    mine = client.run(["/bin/echo", f"Needle-{needle}", "in\x1b[2J", "a haystack"])
    by_id = client.query_audit(AuditFilter(execution_id=mine.execution_id), oldest_first=True)
    rules = [record.rule for record in by_id.records]
    assert (rules[0], rules[-1]) == ("execution.requested", "execution.ended") and "policy.decided" in rules
    assert [json.loads(record.line) for record in by_id.records] == daemon.records_of(mine.execution_id)
    by_text = client.query_audit(AuditFilter(text=f"needle-{needle.upper()} IN"))
    assert [record.seq for record in by_text.records] == [by_id.records[0].seq]
    narrowed = client.query_audit(
        AuditFilter(
            execution_id=mine.execution_id, tenant="local", rule="execution.*", minimum_priority="Informational"
        )
    )
    assert {record.rule for record in narrowed.records} == {rule for rule in rules if rule.startswith("execution.")}
    shown = sandboxctl(daemon, "audit", "query", "--text", f"needle-{needle} in")
    assert (shown.returncode, shown.stdout.count("\n")) == (0, 1), shown.stderr
    assert "execution.requested" in shown.stdout and "\x1b" not in shown.stdout


def test_a_follower_misses_nothing_over_the_death_of_the_daemon_and_of_the_node() -> None:
    with start_daemon(Mode.ROOTLESS) as node:
        _follow_over_lives(node)


def _follow_over_lives(node: RunningDaemon) -> None:
    with node.client() as client:
        client.run(["/bin/true"])
    first = Follower(node, 0)
    first.start()
    proc.until(lambda: any(piece.caught_up for piece in first.news), "it has what is there")
    with node.client() as client:
        client.run(["/bin/echo", "live"])
    kill_daemon(node)
    first.join(60)
    assert first.end is not None
    second = Follower(node, first.news[-1].next_seq)
    second.start()
    proc.until(lambda: any(piece.caught_up for piece in second.news), "it has what is there")
    restart.kill_spawner(node)
    second.join(60)
    with restart.restarted(node) as again:
        with again.client() as client:
            client.run(["/bin/echo", "third life"])
        third = Follower(again, second.news[-1].next_seq)
        third.start()
        proc.until(lambda: any(piece.caught_up for piece in third.news), "it has what is there")
        whole = [*first.news, *second.news, *third.news]
        assert seqs(whole) == list(range(1, seqs(whole)[-1] + 1))
        assert not any(piece.missing or piece.damages for piece in whole)
        assert sum(record.rule == "daemon.started" for piece in whole for record in piece.records) == 3
        with again.client() as client:
            assert len(client.query_audit(AuditFilter(rule="daemon.started")).records) == 3
            assert client.verify_audit().ok
        again.process.terminate()
        third.join(60)
        assert third.end is not None and third.end.reason == "draining"


def test_an_edited_byte_is_found_by_the_node_and_from_outside(tmp_path: Path) -> None:
    need_root()
    with start_daemon(Mode.ROOT) as node, node.client() as client:
        for word in ("one", "two", "three"):
            client.run(["/bin/echo", word])
        key = tmp_path / "key.pem"
        key.write_text(sandboxctl(node, "audit", "key").stdout)
        good = sandboxctl(node, "audit", "verify", "--public-key", str(key), "--json")
        assert (good.returncode, json.loads(good.stdout)["ok"]) == (0, True), good.stderr
        (segment, *_) = sorted((node.state_dir / "journal").glob("*.jsonl"))
        content = segment.read_bytes()
        at = content.index(b'"command":"/bin/echo two"') + len(b'"command":"/bin/echo ')
        number = content[:at].count(b"\n") + 1
        edited = content[:at] + b"T" + content[at + 1 :]
        with segment.open("r+b") as file:
            file.seek(at)
            file.write(b"T")
        bad = client.verify_audit()
        assert bad.first_bad is not None and not bad.ok
        assert (bad.first_bad.segment, bad.first_bad.line, bad.first_bad.fault) == (segment.name, number, "edited")
        found = client.query_audit(AuditFilter(text="echo two"))
        assert [damage.seq for damage in found.damages] == [number] and not found.records
        copied = sandboxctl(node, "audit", "verify", str(segment.parent), "--public-key", str(key), "--json")
        assert (copied.returncode, json.loads(copied.stdout)["first_bad"]["line"]) == (1, number), copied.stderr
        offline = sandboxctl(node, "audit", "query", "--journal", str(segment.parent), "--text", "echo Two", "--json")
        assert edited.splitlines()[number - 1].decode() == offline.stdout.strip()
