"""The commands of `sandboxctl` besides `run`, each as a process."""

import json
import signal
from pathlib import Path

from sandboxd import __version__
from sandboxd.rpc.v1 import approval_pb2, profile_pb2, sandbox_pb2
from tests.fakes.server import FakeDaemon, approval, chunk, result
from tests.unit.cli.conftest import Sandboxctl


def running(execution_id: str, command: str) -> sandbox_pb2.Execution:
    return sandbox_pb2.Execution(
        execution_id=execution_id, command=command, state=sandbox_pb2.EXECUTION_STATE_RUNNING, profile="python"
    )


def test_ps_shows_the_living_and_escapes_what_a_program_chose(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    ended = sandbox_pb2.Execution(execution_id="gone", state=sandbox_pb2.EXECUTION_STATE_ENDED, result=result().result)
    daemon.executions = (running("alive", "evil\x1b]0;title\x07"), ended)
    living, everything = sandboxctl("ps"), sandboxctl("ps", "--all")
    assert living.returncode == everything.returncode == 0
    assert b"alive" in living.stdout and b"gone" not in living.stdout
    assert b"\x1b" not in living.stdout and b"evil\\x1b" in living.stdout
    assert b"gone" in everything.stdout and b"EXITED" in everything.stdout


def test_ps_as_json_can_be_read_by_programs(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.executions = (running("alive", "x"),)
    told = json.loads(sandboxctl("ps", "--json").stdout)
    assert (told[0]["execution_id"], told[0]["state"], told[0]["end_reason"]) == ("alive", "running", None)


def test_logs_keep_the_streams_apart_and_the_bytes_whole(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.logs = (chunk("stdout", b"\xff\x00").chunk, chunk("stderr", b"err").chunk)
    done = sandboxctl("logs", "x")
    assert (done.stdout, done.stderr) == (b"\xff\x00", b"err")


def test_kill_takes_signals_by_name(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    assert sandboxctl("kill", "a").returncode == 0
    assert sandboxctl("kill", "b", "--signal", "TERM").returncode == 0
    done = sandboxctl("kill", "c", "--signal", "NOPE")
    assert (done.returncode, b"unknown signal 'NOPE'" in done.stderr) == (125, True)
    assert daemon.kills == [("a", None), ("b", 15)]


def test_version_tells_both_sides(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.version = "7.8.9"
    told = json.loads(sandboxctl("version", "--json").stdout)
    assert (told["client"], told["daemon"], told["kernel"]) == (__version__, "7.8.9", "6.18.0")
    assert b"7.8.9" in sandboxctl("version").stdout


def test_profiles_are_listed_and_shown(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    profile = profile_pb2.Profile(name="python", description="for python", network="none", spec_json='{"a": 1}')
    profile.limits.memory_bytes = 64 << 20
    profile.limits.wall_seconds = 10
    profile.interpreters.add(language="python", argv=["/usr/bin/python3", "{file}"])
    profile.requirements.add(guarantee="network.none", level=profile_pb2.ENFORCEMENT_LEVEL_REQUIRE)
    profile.warnings.append("it is weak")
    daemon.profiles = (profile,)
    assert b"for python" in sandboxctl("profile", "list").stdout
    assert json.loads(sandboxctl("profile", "list", "--json").stdout)[0]["name"] == "python"
    shown = sandboxctl("profile", "show", "python").stdout.decode()
    for expected in ("64 MiB", "10 s", "require", "/usr/bin/python3 {file}", "it is weak"):
        assert expected in shown
    assert json.loads(sandboxctl("profile", "show", "python", "--json").stdout) == {"a": 1}


def test_unknown_profile_is_125_with_its_name(sandboxctl: Sandboxctl) -> None:
    done = sandboxctl("profile", "show", "nope")
    assert (done.returncode, done.stderr) == (125, b"sandboxctl: not_found: no profile 'nope'\n")


def test_absent_daemon_is_125_with_a_way_out(tmp_path: Path) -> None:
    done = Sandboxctl(str(tmp_path / "none"))("ps")
    assert done.returncode == 125
    assert b"sandboxd serve" in done.stderr


def test_approvals_are_listed_and_shown_with_what_there_is_to_decide_on(
    sandboxctl: Sandboxctl, daemon: FakeDaemon
) -> None:
    daemon.approvals = (approval(1), approval(2, approval_pb2.APPROVAL_STATE_DENIED))
    listed, pending = sandboxctl("approval", "list"), sandboxctl("approval", "list", "--pending")
    shown = sandboxctl("approval", "list", f"{1:032x}")
    assert listed.returncode == pending.returncode == shown.returncode == 0
    assert b"denied" in listed.stdout and b"denied" not in pending.stdout
    assert b"1/2" in pending.stdout and b"uid:1000" in pending.stdout
    assert b'"install"' in shown.stdout and b"role:operator" in shown.stdout and b"uid:0 fine" in shown.stdout
    assert b"\x1b" not in listed.stdout + shown.stdout
    assert b"NOT ALL OF IT" not in shown.stdout


def test_an_approval_that_is_not_shown_whole_says_so(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    cut = approval()
    cut.shown, cut.shown_bytes = '{"source":"print(1)\x1b[2J', 40000
    daemon.approvals = (cut,)
    shown = sandboxctl("approval", "list", cut.approval_id).stdout
    assert b"NOT ALL OF IT: this is cut, the whole has 40000 bytes" in shown and b"f" * 64 in shown
    assert b"\x1b" not in shown


def test_votes_are_cast_with_a_comment(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.approvals = (approval(),)
    assert sandboxctl("approval", "approve", f"{1:032x}", "--comment", "fine").returncode == 0
    told = json.loads(sandboxctl("approval", "deny", f"{1:032x}", "-m", "never", "--json").stdout)
    assert (told[0]["approval_id"], told[0]["votes"][0]["approver"]) == (f"{1:032x}", "uid:0")
    assert daemon.votes == [(f"{1:032x}", True, "fine"), (f"{1:032x}", False, "never")]
    unknown = sandboxctl("approval", "approve", "0" * 32)
    assert (unknown.returncode, b"not_found" in unknown.stderr) == (125, True)


def test_a_watch_prints_each_change_as_it_comes(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.approvals = (approval(),)
    with sandboxctl.start("approval", "watch") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert daemon.running.wait(30)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert line.startswith(f"{1:032x} pending execution.start uid:1000 python 1/2 review: evil\\x1b".encode())
    assert daemon.cancelled.wait(30)
