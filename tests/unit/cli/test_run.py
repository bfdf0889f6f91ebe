"""`sandboxctl run` as a process: what a shell sees of it."""

import base64
import json
import signal
from pathlib import Path

import grpc
import pytest

from sandboxd.rpc.v1 import sandbox_pb2
from tests.fakes.server import EXECUTION_ID, FakeDaemon, accepted, chunk, hangs, refuses, result, says
from tests.unit.cli.conftest import Sandboxctl

BYTES = bytes(range(256))


def test_streams_and_exit_code_are_the_programs(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.script = says(accepted(), chunk("stdout", BYTES), chunk("stderr", BYTES[::-1]), result(exit_code=42))
    done = sandboxctl("run", "--", "prog", "--flag", "-e")
    assert (done.returncode, done.stdout, done.stderr) == (42, BYTES, BYTES[::-1])
    assert list(daemon.requests[0].argv.argv) == ["prog", "--flag", "-e"]


def test_output_is_there_before_the_program_ends(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.script = hangs(daemon, accepted(), chunk("stdout", b"early"))
    with sandboxctl.start("run", "x") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"early"
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 143


def test_stdin_is_sent_along(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    sandboxctl("run", "cat", stdin=BYTES)
    assert daemon.requests[0].stdin == BYTES


def test_stdin_beyond_the_cap_is_refused_before_anything_runs(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    done = sandboxctl("run", "cat", stdin=b"x" * (16 * 1024 * 1024))
    assert (done.returncode, daemon.requests) == (125, [])
    assert b"the most a request carries" in done.stderr


def test_options_reach_the_daemon(sandboxctl: Sandboxctl, daemon: FakeDaemon, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_bytes(b"echo")
    script.chmod(0o755)
    sandboxctl(
        *("run", "-p", "python", "--isolation", "process", "--limit", "memory=64MiB", "--limit", "wall=500ms"),
        *("-e", "A=b=c", "--file", f"{script}:bin/s", "--label", "k=v", "--network", "none", "--cwd", "bin", "--", "x"),
    )
    sent = daemon.requests[0]
    assert (sent.profile, sent.isolation, sent.network, sent.cwd) == ("python", 1, "none", "bin")
    assert (sent.limits.memory_bytes, sent.limits.wall_seconds) == (64 << 20, 0.5)
    assert (dict(sent.env), dict(sent.labels)) == ({"A": "b=c"}, {"k": "v"})
    assert [(f.path, f.content, f.mode) for f in sent.files] == [("bin/s", b"echo", 0o755)]


@pytest.mark.parametrize(("end", "status"), [("WALL_TIMEOUT", 124), ("MEMORY_LIMIT", 137), ("NODE_SHUTDOWN", 125)])
def test_end_that_was_not_the_programs_is_said_on_stderr(
    sandboxctl: Sandboxctl, daemon: FakeDaemon, end: str, status: int
) -> None:
    daemon.script = says(accepted(), result(end=end, exit_code=None, signal=9, message="it took too much"))
    done = sandboxctl("run", "x")
    assert (done.returncode, done.stderr.decode()) == (status, f"sandboxctl: {end}: it took too much\n")


def test_death_by_signal_is_128_plus_its_number(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.script = says(accepted(), result(end="SIGNALED", signal=11))
    done = sandboxctl("run", "x")
    assert (done.returncode, done.stderr) == (139, b"")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_cancels_the_execution(
    sandboxctl: Sandboxctl, daemon: FakeDaemon, signum: signal.Signals, status: int
) -> None:
    daemon.script = hangs(daemon, accepted())
    with sandboxctl.start("run", "sleep", "100") as process:
        assert daemon.running.wait(30)
        assert not daemon.cancelled.is_set()
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (status, b"")
    assert daemon.cancelled.wait(30)


def test_reader_that_goes_away_ends_the_execution_quietly(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.script = hangs(daemon, accepted(), chunk("stdout", b"a"), *(chunk("stdout", b"y" * 65536),) * 64)
    with sandboxctl.start("run", "yes") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
    assert daemon.cancelled.wait(30)


def test_refusal_is_125_with_its_reason_and_what_to_tell_the_agent(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.script = refuses(grpc.StatusCode.PERMISSION_DENIED, "no_shell", "shells are denied", "use python \x1b[31m")
    done = sandboxctl("run", "sh")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == b"sandboxctl: no_shell: shells are denied\nsandboxctl: for the agent: use python \\x1b[31m\n"


def test_absent_daemon_is_125_with_its_socket_and_a_way_out(tmp_path: Path) -> None:
    done = Sandboxctl(str(tmp_path / "none"))("run", "x")
    assert done.returncode == 125
    assert str(tmp_path / "none") in done.stderr.decode()
    assert b"sandboxd serve" in done.stderr


def test_json_is_one_object_with_exact_bytes(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    last = result(exit_code=3)
    last.result.files.add(path="a", content=BYTES, mode=0o644)
    daemon.script = says(accepted(), chunk("stdout", BYTES), last)
    done = sandboxctl("run", "--json", "x")
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit_code"], told["end_reason"]) == (3, 3, "EXITED")
    assert (base64.b64decode(told["stdout_base64"]), told["stdout"][:65][-1]) == (BYTES, "@")
    assert base64.b64decode(told["files"][0]["content_base64"]) == BYTES
    assert told["enforcement"]["rows"][1]["state"] == "degraded"
    assert told["execution_id"] == EXECUTION_ID


def test_json_of_a_refusal_carries_its_reason(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.script = refuses(grpc.StatusCode.FAILED_PRECONDITION, "unenforceable", "no cgroup", "ask an operator")
    done = sandboxctl("run", "--json", "x")
    told = json.loads(done.stdout)["error"]
    assert (done.returncode, told["kind"], told["reason"]) == (125, "Unenforceable", "unenforceable")
    assert told["message_for_agent"] == "ask an operator"


def test_explain_leaves_stdout_to_the_program(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    last = result()
    last.result.limits_hit.append("pids")
    last.result.violations.add(layer="seccomp", code="ptrace", detail="evil\x1b[2J")
    daemon.script = says(accepted(), chunk("stdout", b"out"), last)
    done = sandboxctl("run", "--explain", "x")
    told = done.stderr.decode()
    assert done.stdout == b"out"
    for expected in (
        "network.none",
        "no cgroup here",
        "pids",
        "1 MiB",
        "memory is bounded per process",
        "evil\\x1b[2J",
    ):
        assert expected in told
    assert "\x1b[2J" not in told


def test_collected_files_are_written_and_none_leaves_the_directory(
    sandboxctl: Sandboxctl, daemon: FakeDaemon, tmp_path: Path
) -> None:
    good, evil = result(), result()
    good.result.files.add(path="sub/a", content=b"1", mode=0o644)
    evil.result.files.add(path="../b", content=b"2", mode=0o644)
    out = tmp_path / "out"
    daemon.script = says(accepted(), good)
    assert sandboxctl("run", "--collect", "**", "--output-dir", str(out), "x").returncode == 0
    assert (out / "sub/a").read_bytes() == b"1"
    assert list(daemon.requests[0].collect) == ["**"]
    daemon.script = says(accepted(), evil)
    assert sandboxctl("run", "--collect", "**", "--output-dir", str(out), "x").returncode == 125
    assert not (tmp_path / "b").exists()


def test_truncation_is_said(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    last = result()
    last.result.stdout_truncated = True
    last.result.usage.stdout_bytes = 12345
    daemon.script = says(accepted(), last)
    done = sandboxctl("run", "x")
    assert done.returncode == 0
    assert b"stdout is cut: the program wrote 12345 bytes" in done.stderr


def test_newer_minor_version_is_a_warning_and_another_major_an_error(
    sandboxctl: Sandboxctl, daemon: FakeDaemon
) -> None:
    daemon.version = "0.99.0"
    done = sandboxctl("run", "x")
    assert (done.returncode, b"0.99.0" in done.stderr) == (0, True)
    daemon.version = "99.0.0"
    done = sandboxctl("run", "x")
    assert (done.returncode, b"update the older one" in done.stderr, len(daemon.requests)) == (125, True, 1)


def test_stream_that_ends_early_is_a_failure(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.script = says(accepted(), sandbox_pb2.ExecuteEvent())
    assert sandboxctl("run", "x").returncode == 125
