"""Table "Execution-policy bypass" where each exec is a question: what policy denies does not run, all is on record.

What static rules keep from running is tried again by execveat, with an event for each attempt. A program that swaps
what it named while it is asked about may run what policy denied, but never what no rule lets run.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.client import Result, SandboxdError
from tests import proc, restart
from tests.daemon import CHECKOUT, Mode, RunningDaemon, start_daemon
from tests.escape.attempt import PROBES, Attempt, Ended, attempts, check_control, command, ended, unconfined
from tests.escape.confined import Confined, shipped
from tests.escape.test_exec_policy import ROWS as STATIC
from tests.modes import EACH, need_mode
from tests.skips import need_root

PROFILE = """\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {name: mediated}
spec:
  description: each exec is a question
  extends: default
  mediate: [process.exec]
  report: [ptrace, mount, seccomp, prctl]
  seccomp:
    allow:
      - {names: [execveat], why: so that it is asked about as well}
  limits: {pids: 1200, open_files: 2048, wall_seconds: 300, cpu_seconds: 300}
"""
POLICY = """\
package sandboxd

import rego.v1

default decision := {"verdict": "allow", "reasons": []}

decision := {
	"verdict": "deny",
	"reasons": [{"code": "no_printf", "message": "printf is not for you"}],
	"message_for_agent": "Use echo.",
} if {
	input.action.type == "process.exec"
	input.action.image == "/usr/bin/printf"
}
"""
MARKER = "0.0186397"
MODULES = ("mediated", "system_calls")
DENIED = "/usr/bin/printf"
ROUTES = (
    "by_name", "by_relative_name", "by_link", "by_other_root", "by_descriptor_of_itself", "by_descriptor_of_parent",
    "by_execveat", "by_execveat_below", "by_thread", "by_posix_spawn", "by_vfork",
)  # fmt: skip
# The shipped profiles refuse execveat itself; what execve runs is asked about with the attempts of test_exec_policy.
IMAGES = {"memfd_execveat": "/memfd:probe (deleted)", "tmpfile_exec": "(deleted)"}
Record = dict[str, object]


@pytest.fixture(scope="module", params=EACH, ids=str)
def asking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    need_mode(request.param)
    with started(request.param) as daemon:
        yield daemon


@contextlib.contextmanager
def started(mode: Mode) -> Iterator[RunningDaemon]:
    with tempfile.TemporaryDirectory(prefix="sandboxd-mediated-", dir="/var/tmp") as directory:
        for name, content in (("profiles/mediated.yaml", PROFILE), ("policies/test.rego", POLICY)):
            path = Path(directory, name)
            path.parent.mkdir()
            path.write_text(content)
        Path(directory).chmod(0o755)
        settings = f"profiles: {{paths: [{CHECKOUT / 'profiles'}, {directory}/profiles]}}\n"
        with start_daemon(mode, f"{settings}policy: {{paths: [{directory}/policies]}}\n") as daemon:
            yield daemon


@pytest.fixture
def mediated(asking: RunningDaemon) -> Iterator[Confined]:
    with asking.client() as client:
        yield Confined(asking, client)


@dataclass(frozen=True, slots=True)
class Seen:
    """How a probe ended, and the events about it."""

    result: Result
    ended: Ended
    asked: list[Record]
    refused: list[Record]

    def verdicts(self, image: str) -> Counter[object]:
        return Counter(event["verdict"] for event in self.asked if str(event["image"]).endswith(image))


def see(mediated: Confined, module: str, *arguments: str, limits: Mapping[str, float] | None = None) -> Seen:
    result = mediated.run(command(module, arguments), (*MODULES, module), profile="mediated", limits=limits)
    events: dict[object, list[Record]] = {"process.exec_decided": [], "syscall.denied": []}
    for record in mediated.daemon.records_of(result.execution_id):
        if record["rule"] in events:
            events[record["rule"]].append(record["fields"])  # type: ignore[arg-type]
    how = ended(result.stdout, result.exit_code, result.signal, result.stderr)
    return Seen(result, how, events["process.exec_decided"], events["syscall.denied"])


def control(outside: Path, probe: str, *arguments: str) -> Ended:
    """The same probe unconfined."""
    for module in MODULES:
        (outside / "probes").mkdir(exist_ok=True)
        shutil.copy(PROBES / f"{module}.py", outside / "probes")
    return unconfined(outside, "mediated", (probe, *arguments))


@attempts(*(row for row in STATIC if row.probe in IMAGES))
def test_what_static_rules_stop_is_asked_about_first(attempt: Attempt, mediated: Confined) -> None:
    """The policy of this file allows it; its control is with the unmediated rows."""
    seen = see(mediated, "exec_policy", attempt.probe, *attempt.argv)
    assert seen.ended.answer in attempt.must, f"{attempt.name} ended: {seen.ended}"
    made = seen.ended.detail != "syscall memfd_create"  # without the sysctl the filter lets no such file be made
    assert (seen.verdicts(IMAGES[attempt.probe])["allow"] > 0) == made, seen.asked


@pytest.mark.parametrize("route", ROUTES)
def test_what_policy_denies_runs_by_no_route(route: str, mediated: Confined, outside: Path) -> None:
    seen = see(mediated, "mediated", route)
    assert str(seen.ended).startswith("errno EACCES"), seen.ended
    assert seen.verdicts(DENIED) == {"deny": 1}
    (event,) = (event for event in seen.asked if event["verdict"] == "deny")
    assert (event["reason_codes"], event["layer"], event["arguments"]) == (["no_printf"], "policy", 2)
    (violation,) = seen.result.violations
    assert (violation.layer, violation.code) == ("policy", "no_printf")
    assert seen.result.message_for_agent == "Use echo."
    check_control(Attempt("X01", route, ("EACCES",)), control(outside, route))


def test_process_that_cannot_be_looked_at_runs_nothing_denied(mediated: Confined, outside: Path) -> None:
    """Where it has init's own uid it cannot be read at all, and that is a refusal."""
    seen = see(mediated, "mediated", "by_undumpable")
    assert str(seen.ended).startswith("errno EACCES"), seen.ended
    unreadable = [event for event in seen.refused if event["reason"] == "unreadable"]
    assert len(unreadable) + seen.verdicts(DENIED)["deny"] == 1
    check_control(Attempt("X01", "by_undumpable", ("EACCES",)), control(outside, "by_undumpable"))


def test_x09_swapped_name_in_memory_runs_nothing_that_no_rule_lets_run(mediated: Confined, outside: Path) -> None:
    seen = see(mediated, "mediated", "flipped_memory")
    assert seen.ended.answer == "refused", seen.ended
    assert seen.verdicts("/true")["allow"] > 0
    assert seen.verdicts("/evil")["allow"] > 0
    check_control(Attempt("X09", "flipped_memory", ("refused",)), control(outside, "flipped_memory"))


@pytest.mark.parametrize(("probe", "call"), [("silence_by_seccomp", "seccomp"), ("silence_by_prctl", "prctl")])
def test_s35_filter_that_would_silence_the_questions_is_refused(
    probe: str, call: str, mediated: Confined, outside: Path
) -> None:
    seen = see(mediated, "mediated", probe)
    assert seen.ended.answer == "EPERM"
    (event,) = seen.refused
    assert (event["name"], event["pid"], event["layer"]) == (call, seen.ended.pid, "seccomp")
    check_control(Attempt("S35", probe, ("EPERM",)), control(outside, probe))


def test_execve_by_its_number_of_another_architecture_kills(mediated: Confined, outside: Path) -> None:
    assert see(mediated, "mediated", "int80_execve").ended.answer == "SIGSYS"
    check_control(Attempt("S22", "int80_execve", ("SIGSYS",)), control(outside, "int80_execve"))


@pytest.mark.parametrize(
    ("probe", "answer", "reason"),
    [("two_megabytes", "E2BIG", "too_large"), ("unmapped_name", "EFAULT", "fault")],
)
def test_what_cannot_be_put_to_policy_is_refused_and_on_record(
    probe: str, answer: str, reason: str, mediated: Confined
) -> None:
    seen = see(mediated, "mediated", probe)
    assert seen.ended.answer == answer
    (event,) = seen.refused
    assert (event["name"], event["reason"], event["layer"], event["errno"]) == ("execve", reason, "init", answer)
    assert (event["count"], event["suppressed"]) == (1, 0)


def test_control_two_megabytes_of_arguments_are_taken_unconfined(outside: Path) -> None:
    check_control(Attempt("X07", "two_megabytes", ("E2BIG",)), control(outside, "two_megabytes"))


def test_name_that_is_no_text_is_denied(mediated: Confined, outside: Path) -> None:
    seen = see(mediated, "mediated", "name_that_is_no_text")
    assert seen.ended.answer == "EACCES"
    assert [event["reason_codes"] for event in seen.asked] == [["policy_malformed"]]
    check_control(Attempt("X07", "name_that_is_no_text", ("EACCES",)), control(outside, "name_that_is_no_text"))


def test_x17_pipe_as_program_holds_up_nobody(mediated: Confined) -> None:
    seen = see(mediated, "mediated", "pipe_as_program")
    assert seen.ended.answer == "EACCES"
    assert seen.verdicts("/workspace/fifo") == {"allow": 1}


def test_x14_exec_under_signals_is_one_question(mediated: Confined) -> None:
    seen = see(mediated, "mediated", "under_signals")
    assert seen.ended.outcome == "worked", seen.ended
    assert seen.verdicts("/true") == {"allow": 30}


def test_question_of_a_killed_process_holds_up_nobody(mediated: Confined) -> None:
    seen = see(mediated, "mediated", "killed_while_asked")
    assert seen.ended.outcome == "worked", seen.ended
    assert seen.verdicts("/true") == {"allow": 1}


def test_x15_storm_in_one_sandbox_starves_no_other(mediated: Confined) -> None:
    storming = mediated.client.execute(command("mediated", ("storm",)), profile="mediated", files=shipped(MODULES))
    with contextlib.closing(storming) as events:
        for event in events:
            if b"all there" in getattr(event, "data", b""):
                break
        for profile in ("mediated", "default"):
            for _ in range(3):
                result = mediated.client.run(["/bin/sh", "-c", "/bin/echo 1; /bin/echo 2"], profile=profile)
                assert (result.stdout, result.exit_code) == (b"1\n2\n", 0)
    assert mediated.client.run(["/bin/sh", "-c", "/bin/echo 3"], profile="mediated").stdout == b"3\n"


@pytest.mark.root
def test_x13_program_that_is_asked_about_when_the_daemon_is_killed_never_runs() -> None:
    """The daemon is stopped first, so that a question is certainly open when it dies."""
    need_root()
    with started(Mode.ROOT) as daemon, daemon.client() as client, contextlib.suppress(SandboxdError):
        spawner, argv = daemon.process.pid, ["/bin/sh", "-c", f"while :; do /usr/bin/sleep {MARKER}; done"]
        with contextlib.closing(client.execute(argv, profile="mediated")) as events:
            next(events)
            proc.until(lambda: bool(proc.with_argument(spawner, MARKER)), "the program runs")
            os.kill(proc.daemon_pid(spawner), signal.SIGSTOP)
            proc.until(lambda: bool(_forks(spawner)), "a program is asked about, and nobody answers")
            (pid,) = _forks(spawner)
            restart.kill(proc.daemon_pid(spawner))
            while (process := proc.processes().get(pid)) is not None:
                assert process.argv[0] == "/bin/sh"


def _forks(spawner: int) -> list[int]:
    """Children of the shell that have not become another program yet."""
    shells = {found.pid: found for found in proc.with_argument(spawner, MARKER) if found.argv[0] == "/bin/sh"}
    return [found.pid for found in shells.values() if found.parent in shells]


def test_u07_reported_call_leaves_one_event_with_its_layer(mediated: Confined) -> None:
    seen = see(mediated, "mediated", "traced", "0")
    assert seen.ended.answer == "EPERM"
    (event,) = seen.refused
    expected = {
        "name": "ptrace",
        "errno": "EPERM",
        "layer": "seccomp",
        "reason": "profile",
        "count": 1,
        "suppressed": 0,
    }
    assert expected.items() <= event.items()
    assert isinstance(event["number"], int) and isinstance(event["pid"], int)


def test_u07_reported_calls_in_a_row_are_told_of_once_and_counted(mediated: Confined) -> None:
    seen = see(mediated, "mediated", "traced", "999")
    assert sum(event["count"] for event in seen.refused) == 1000  # type: ignore[misc]
    assert all(event["suppressed"] == event["count"] - 1 for event in seen.refused)  # type: ignore[operator]
    assert len(seen.refused) < 100


def test_u07_call_that_the_profile_does_not_report_leaves_none(mediated: Confined) -> None:
    result = mediated.run(command("mediated", ("traced", "0")), MODULES)
    assert ended(result.stdout, result.exit_code, result.signal).answer == "EPERM"
    rules = {record["rule"] for record in mediated.daemon.records_of(result.execution_id)}
    assert "execution.ended" in rules
    assert "syscall.denied" not in rules and "process.exec_decided" not in rules


def test_report_says_that_execs_are_asked_about(mediated: Confined) -> None:
    report = mediated.client.run(["/bin/true"], profile="mediated").enforcement
    rows = {row.guarantee: (row.state.value, row.layers) for row in report.rows if "mediation" in row.guarantee}
    assert rows == {
        "mediation.exec": ("enforced", ("seccomp", "init", "policy")),
        "mediation.report": ("enforced", ("seccomp", "init")),
    }
    assert any("swap what it named" in warning for warning in report.warnings)
