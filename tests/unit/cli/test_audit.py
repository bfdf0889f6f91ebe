"""`sandboxctl audit` as a process, before a node that answers from a script."""

import json
from pathlib import Path

from sandboxd.audit.key import KEYS, PUBLIC, open_key
from sandboxd.rpc.v1 import audit_pb2
from tests.fakes.audit_service import record
from tests.fakes.server import FakeDaemon
from tests.unit.audit.looked_up import content, write
from tests.unit.cli.conftest import Sandboxctl


def test_query_puts_every_condition_to_the_node_and_prints_a_line_each(
    sandboxctl: Sandboxctl, daemon: FakeDaemon
) -> None:
    daemon.audit.records = tuple(record(seq) for seq in range(1, 6))
    done = sandboxctl(
        "audit", "query", "--since", "2026-01-01", "--until", "2026-02-01", "--tenant", "acme", "-e", "e1", "--sandbox",
        "s1", "-r", "policy.*", "--verdict", "deny", "--priority", "warning", "-t", "x y", "-n", "3", "--oldest-first",
    )  # fmt: skip
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert [line.split()[:4] for line in lines] == [
        [str(seq), "2026-01-02", "03:04:05.000Z", "Warning"] for seq in (1, 2, 3)
    ]
    assert b"\x1b" not in done.stdout and b"go on with --page 3" in done.stderr
    asked = daemon.audit.queries[0]
    assert (asked.filter.tenant, asked.filter.execution_id, asked.filter.sandbox_id) == ("acme", "e1", "s1")
    assert (asked.filter.rule, asked.filter.verdict, asked.filter.text) == ("policy.*", "deny", "x y")
    assert (asked.filter.minimum_priority, asked.oldest_first) == ("Warning", True)
    assert (asked.filter.since.seconds, asked.filter.until.seconds) == (1_767_225_600, 1_769_904_000)
    more = sandboxctl("audit", "query", "--page", "3", "--json")
    assert [json.loads(line)["seq"] for line in more.stdout.splitlines()] == [4, 5]


def test_query_exits_with_1_where_something_is_damaged(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.audit.damages = (audit_pb2.AuditDamage(seq=9, segment="s", reason="edited"),)
    done = sandboxctl("audit", "query")
    assert (done.returncode, b"DAMAGED: record 9" in done.stderr) == (1, True)


def test_query_of_a_directory_needs_no_node(tmp_path: Path) -> None:
    write(tmp_path / "journal", [[content(command="found")]])
    absent = Sandboxctl(str(tmp_path / "none"))
    done = absent("audit", "query", "--journal", str(tmp_path / "journal"), "--json")
    assert (done.returncode, json.loads(done.stdout)["seq"]) == (0, 1)
    assert absent("audit", "query", "--journal", str(tmp_path / "nothing")).returncode == 125
    assert absent("audit", "query", "--priority", "x").returncode == 125


def test_tail_prints_at_once_and_says_where_to_go_on(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.audit.news = (
        audit_pb2.AuditServiceTailResponse(records=[record(7)], next_seq=8, missing=2),
        audit_pb2.AuditServiceTailResponse(records=[record(9)], next_seq=10, caught_up=True),
    )
    daemon.audit.tail_ends = True
    done = sandboxctl("audit", "tail", "--from", "5", "--rule", "policy.*", "--json")
    assert done.returncode == 125
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [7, 9]
    assert b"2 records before the next one" in done.stderr and b"go on with --from 10" in done.stderr
    assert (daemon.audit.tails[0].from_seq, daemon.audit.tails[0].filter.rule) == (5, "policy.*")


def test_verify_has_the_nodes_word_and_key(sandboxctl: Sandboxctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.audit.verification = audit_pb2.AuditServiceVerifyResponse(ok=True, records=3)
    assert sandboxctl("audit", "verify").returncode == 0
    open_key(tmp_path)
    other = sandboxctl("audit", "verify", "--public-key", str(tmp_path / KEYS / PUBLIC))
    assert (other.returncode, b"wrong_key: the node signs with key '9999" in other.stderr) == (1, True)
    bad = audit_pb2.AuditBadRecord(segment="s", line=4, seq=4, fault="edited", reason="r")
    daemon.audit.verification = audit_pb2.AuditServiceVerifyResponse(records=3, first_bad=bad)
    done = sandboxctl("audit", "verify", "--json")
    assert (done.returncode, json.loads(done.stdout)["first_bad"]["fault"]) == (1, "edited")


def test_verify_of_a_directory_needs_no_node(tmp_path: Path) -> None:
    write(tmp_path / "journal", [[content()]])
    absent = Sandboxctl(str(tmp_path / "none"))
    assert absent("audit", "verify", str(tmp_path / "journal")).returncode == 1, "no checkpoint of it is signed"
    assert absent("audit", "verify", str(tmp_path)).returncode == 125
    assert absent("audit", "verify").returncode == 125


def test_sinks_and_key_are_printed(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.audit.sinks = (audit_pb2.AuditSink(name="siem", state="stuck", lag_records=8),)
    assert b"stuck" in sandboxctl("audit", "sinks").stdout
    assert json.loads(sandboxctl("audit", "sinks", "--json").stdout)[0]["lag_records"] == 8
    assert sandboxctl("audit", "key").stdout == daemon.audit.public_key_pem.encode()
