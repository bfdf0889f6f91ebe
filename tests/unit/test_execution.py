"""The line of one Execute: every step that can refuse, what is on record then, and that nothing is left alive."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sandboxd.admission import Admission
from sandboxd.analysis.analyser import Analyser
from sandboxd.approval.office import Approvals
from sandboxd.errors import (
    AuditUnavailable,
    Draining,
    InvalidRequest,
    NotFound,
    Overloaded,
    PolicyDenied,
    RuntimeFailed,
    SandboxdError,
    Unenforceable,
)
from sandboxd.event import (
    ExecutionEnded,
    ExecutionRefused,
    ExecutionRequested,
    ExecutionStarted,
    PolicyDecided,
)
from sandboxd.execution import Executor, Item
from sandboxd.gate import Gate
from sandboxd.lifecycle import ExecutionState, Registry
from sandboxd.model import (
    Accepted,
    Agent,
    ArgvProgram,
    Caller,
    Chunk,
    CodeProgram,
    Decision,
    EndReason,
    ExecuteRequest,
    ExitStatus,
    Guarantee,
    InputFile,
    Isolation,
    Obligations,
    Outcome,
    Reason,
    State,
    Verdict,
)
from sandboxd.policy.document import Seen
from sandboxd.profile.load import ProfileSet, load_profiles
from sandboxd.refusals import Refusals
from sandboxd.telemetry.timeline import Timeline
from sandboxd.trace_context import TraceContext
from tests.fakes.approvals import ESCALATE, Office
from tests.fakes.policy import FakeEngine
from tests.fakes.recorder import FakeRecorder
from tests.fakes.runtime import FakeProgram, FakeRuntime, FakeSandbox, everything_enforced, forever
from tests.unit.redaction.samples import SAMPLES

CALLER = Caller("local", "uid:1000", (), "Execute")
REQUEST = ExecuteRequest(ArgvProgram(("/bin/echo", "hello")))
PROFILES = Path(__file__).parents[2] / "profiles"


@pytest.fixture(scope="session")
def profiles() -> ProfileSet:
    return load_profiles([PROFILES])


@dataclass
class Node:
    """A whole line on fakes."""

    profiles: ProfileSet
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    engine: FakeEngine = field(default_factory=FakeEngine)
    recorder: FakeRecorder = field(default_factory=FakeRecorder)
    admission: Admission = field(default_factory=lambda: Admission(8, 0, lambda: 0.0))
    registry: Registry = field(default_factory=lambda: Registry(16, 1 << 20, lambda: 1.0))
    analyser: Analyser = field(default_factory=lambda: Analyser(deadline_seconds=60.0, wait_seconds=60.0))
    approvals: Approvals | None = None
    refusals: Refusals = field(default_factory=lambda: Refusals(3, lambda: 0.0))

    def __post_init__(self) -> None:
        ids = iter(range(1, 1 << 20))
        self.executor = Executor(
            lambda: self.profiles,
            Gate(self.engine, approvals=self.approvals),
            {Isolation.PROCESS: self.runtime},
            self.recorder,
            self.admission,
            self.registry,
            self.analyser,
            asyncio.get_running_loop(),
            lambda: f"{next(ids):032x}",
            refusals=self.refusals,
        )

    def execute(self, request: ExecuteRequest = REQUEST) -> AsyncGenerator[Item, None]:
        return self.executor.execute(request, CALLER)

    async def items(self, request: ExecuteRequest = REQUEST) -> list[Item]:
        return [item async for item in self.execute(request)]

    async def refusal(self, request: ExecuteRequest = REQUEST) -> SandboxdError:
        with pytest.raises(SandboxdError) as caught:
            await self.items(request)
        assert self.runtime.alive == set()
        assert self.admission.running == 0
        assert self.registry.living == 0
        return caught.value

    @property
    def rules(self) -> list[str]:
        return self.recorder.rules


@pytest.fixture
async def node(profiles: ProfileSet) -> AsyncIterator[Node]:
    made = Node(profiles)
    yield made
    await made.analyser.close()


def decided(node: Node) -> list[PolicyDecided]:
    return [event for event in node.recorder.events if isinstance(event, PolicyDecided)]


async def test_a_program_runs_and_every_step_is_on_record(node: Node) -> None:
    accepted, chunk, outcome = await node.items()
    assert isinstance(accepted, Accepted) and isinstance(chunk, Chunk) and isinstance(outcome, Outcome)
    assert chunk.data == b"hello\n"
    assert (outcome.end_reason, outcome.exit_code) == (EndReason.EXITED, 0)
    assert accepted.execution_id == outcome.execution_id != accepted.sandbox_id
    assert accepted.policy_revision == node.engine.revision
    assert node.rules == [
        "execution.requested", "policy.decided", "policy.decided", "execution.started", "execution.ended",
    ]  # fmt: skip
    assert [event.action for event in decided(node)] == ["profile.use", "execution.start"]
    assert {event.execution_id for event in node.recorder.events} == {accepted.execution_id}
    assert len({event.trace_id for event in node.recorder.events}) == 1
    await node.executor.settled()
    assert node.runtime.alive == set()
    assert node.admission.running == 0


async def test_record_says_what_was_not_enforced(node: Node) -> None:
    rows = tuple(
        replace(row, state=State.DEGRADED, reason="rlimit only") if row.guarantee is Guarantee.LIMIT_MEMORY else row
        for row in everything_enforced().rows
    )
    node.runtime.capabilities = replace(node.runtime.capabilities, rows=rows)
    await node.items()
    started = node.recorder.events[3]
    assert isinstance(started, ExecutionStarted)
    assert started.degraded == ("limit.memory",)


async def test_document_replays_the_decision_and_holds_no_secret(node: Node) -> None:
    code = CodeProgram("sh", "echo $TOKEN")
    language = node.profiles.get("default").interpreters[0].language
    request = replace(
        REQUEST,
        program=replace(code, language=language),
        stdin=b"stdin-secret",
        files=(InputFile("a.txt", b"file-secret"),),
    )
    await node.items(request)
    requested, start = node.recorder.events[0], decided(node)[1]
    assert isinstance(requested, ExecutionRequested)
    document = node.recorder.documents[requested.input_sha256]
    assert json.loads(document)["program"] == {"language": language, "source": "echo $TOKEN"}
    assert b"secret" not in document
    assert node.recorder.documents[start.input_sha256] == node.engine.asked[0].document


async def test_policy_sees_what_the_source_does_and_so_does_a_replay(node: Node) -> None:
    await node.items(replace(REQUEST, program=CodeProgram("python", "import os\nos.system(x)")))
    action = json.loads(node.engine.asked[0].document)["action"]
    assert action["findings"] == [
        {"code": "import", "detail": "os", "line": 1},
        {"code": "process.start", "detail": "os.system", "line": 2},
    ]
    assert action["code"] == {"language": "python", "bytes": 22, "lines": 2, "entropy": 3.698, "parsed": True}
    recorded = node.recorder.documents[decided(node)[1].input_sha256]
    assert json.loads(recorded)["action"]["findings"] == action["findings"]


async def test_source_in_an_argument_is_looked_at_too(node: Node) -> None:
    await node.items(replace(REQUEST, program=ArgvProgram(("/usr/bin/python3", "-c", "eval(x)"))))
    action = json.loads(node.engine.asked[0].document)["action"]
    assert action["findings"] == [{"code": "eval.string", "detail": "eval", "line": 1}]
    assert (action["code"]["language"], action["code_sha256"]) == ("python", "")


async def test_a_program_without_source_has_no_findings_and_starts_no_worker(node: Node) -> None:
    await node.items()
    action = json.loads(node.engine.asked[0].document)["action"]
    assert (action["findings"], action["code"]) == ([], None)
    assert node.analyser._worker is None


async def test_source_is_only_looked_at_once_it_is_on_record(node: Node) -> None:
    node.recorder.refuses = frozenset({"execution.requested"})
    with pytest.raises(AuditUnavailable):
        await node.items(replace(REQUEST, program=CodeProgram("python", "1")))
    assert node.analyser._worker is None


async def test_source_that_cannot_be_analysed_is_left_to_policy(node: Node) -> None:
    await node.analyser.close()
    *_, outcome = await node.items(replace(REQUEST, program=CodeProgram("python", "import os")))
    assert isinstance(outcome, Outcome) and outcome.end_reason is EndReason.EXITED
    action = json.loads(node.engine.asked[0].document)["action"]
    assert action["findings"] == [{"code": "analysis.failed", "detail": "unavailable", "line": 0}]


async def test_environment_values_never_reach_the_record(node: Node) -> None:
    with pytest.raises(InvalidRequest):
        await node.items(replace(REQUEST, env=(("LD_PRELOAD", "env-secret"),)))
    assert not any(b"env-secret" in document for document in node.recorder.documents.values())
    assert any(b"LD_PRELOAD" in document for document in node.recorder.documents.values())


# --- what refuses


Break = Callable[[Node], None]


def drain(node: Node) -> None:
    node.admission.drain()


def fill(node: Node) -> None:
    node.admission._running = 8


def deny(node: Node) -> None:
    node.engine.answer = Decision(Verdict.DENY, (Reason("no_curl", "curl is not allowed"),), "r1", "Do not use curl.")


def redact(node: Node) -> None:
    node.engine.answer = Decision(Verdict.TRANSFORM, (), "r1", obligations=Obligations(redact=("env",)))


def deny_profile(node: Node) -> None:
    node.engine.use = Decision(Verdict.DENY, (Reason("not_yours", "m"),), "r1", "Use another profile.")


def loosen(node: Node) -> None:
    node.engine.answer = Decision(Verdict.TRANSFORM, (), "r1", obligations=Obligations(limits=(("wall_seconds", 1e6),)))


def demand_gvisor(node: Node) -> None:
    node.engine.answer = Decision(Verdict.TRANSFORM, (), "r1", obligations=Obligations(runtime_floor=Isolation.GVISOR))


def unconfined(node: Node) -> None:
    rows = tuple(
        replace(row, state=State.ABSENT, reason="not here") if row.guarantee is Guarantee.SECCOMP_ALLOWLIST else row
        for row in everything_enforced().rows
    )
    node.runtime.capabilities = replace(node.runtime.capabilities, rows=rows)


def nothing(node: Node) -> None:
    pass


@dataclass(frozen=True)
class Refusal:
    error: type[SandboxdError]
    reason: str
    rules: tuple[str, ...]
    request: ExecuteRequest = REQUEST
    cause: Break = nothing


BEFORE_POLICY = ("execution.requested", "execution.refused")
AFTER_POLICY = ("execution.requested", "policy.decided", "policy.decided", "execution.refused")
DENIED = ("execution.requested", "policy.decided", "policy.decided", "execution.ended")
PROFILE_DENIED = ("execution.requested", "policy.decided", "execution.ended")

REFUSALS = {
    "draining": Refusal(Draining, "draining", BEFORE_POLICY, cause=drain),
    "no slot": Refusal(Overloaded, "slots", BEFORE_POLICY, cause=fill),
    "profile": Refusal(InvalidRequest, "profile_unknown", BEFORE_POLICY, replace(REQUEST, profile="nope")),
    "unknown override": Refusal(
        InvalidRequest, "override_unknown", BEFORE_POLICY, replace(REQUEST, limits=(("wishes", 3),))
    ),
    "looser override": Refusal(
        InvalidRequest, "override_not_tighter", BEFORE_POLICY, replace(REQUEST, limits=(("wall_seconds", 80_000),))
    ),
    "reserved sandbox": Refusal(Unenforceable, "not_supported", BEFORE_POLICY, replace(REQUEST, sandbox_id="a" * 32)),
    "reserved context": Refusal(Unenforceable, "not_supported", BEFORE_POLICY, replace(REQUEST, context_id="c")),
    "reserved key": Refusal(Unenforceable, "not_supported", BEFORE_POLICY, replace(REQUEST, idempotency_key="k")),
    "reserved workspace": Refusal(
        Unenforceable, "not_supported", BEFORE_POLICY, replace(REQUEST, workspace_mode="keep")
    ),
    "reserved detach": Refusal(Unenforceable, "not_supported", BEFORE_POLICY, replace(REQUEST, detach=True)),
    "policy": Refusal(PolicyDenied, "no_curl", DENIED, cause=deny),
    "use of the profile": Refusal(PolicyDenied, "not_yours", PROFILE_DENIED, cause=deny_profile),
    "loosening": Refusal(PolicyDenied, "obligation_loosens", DENIED, cause=loosen),
    "redaction": Refusal(Unenforceable, "obligation_unsupported", AFTER_POLICY, cause=redact),
    "runtime floor": Refusal(Unenforceable, "runtime_missing", AFTER_POLICY, cause=demand_gvisor),
    "isolation": Refusal(
        Unenforceable, "runtime_missing", AFTER_POLICY, replace(REQUEST, isolation=Isolation.KATA)
    ),
    "language": Refusal(
        InvalidRequest, "", AFTER_POLICY, replace(REQUEST, program=CodeProgram("cobol", "STOP RUN."))
    ),
    "environment": Refusal(InvalidRequest, "", AFTER_POLICY, replace(REQUEST, env=(("LD_PRELOAD", "/x.so"),))),
    "file name": Refusal(
        InvalidRequest, "", AFTER_POLICY, replace(REQUEST, files=(InputFile("../x", b""),))
    ),
    "unenforceable": Refusal(Unenforceable, "unenforceable", AFTER_POLICY, cause=unconfined),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusal_is_on_record_and_nothing_was_launched(node: Node, name: str) -> None:
    row = REFUSALS[name]
    row.cause(node)
    if name == "no slot":
        with pytest.raises(Overloaded) as caught:
            await node.items()
        error: SandboxdError = caught.value
    else:
        error = await node.refusal(row.request)
    assert type(error) is row.error
    assert error.reason == (row.reason or error.reason)
    assert tuple(node.rules) == row.rules
    assert node.runtime.launches == []
    last = node.recorder.events[-1]
    if isinstance(last, ExecutionRefused):
        assert last.reason == error.reason
    else:
        assert isinstance(last, ExecutionEnded)
        assert last.end_reason == EndReason.POLICY_DENIED


async def test_control_the_same_request_runs_where_nothing_refuses(node: Node) -> None:
    assert isinstance((await node.items())[-1], Outcome)
    assert len(node.runtime.launches) == 1


async def test_a_profile_that_may_not_be_used_is_refused_before_anything_else_is_asked(node: Node) -> None:
    deny_profile(node)
    error = await node.refusal(replace(REQUEST, program=CodeProgram("python", "1")))
    assert (error.reason, error.message_for_agent) == ("not_yours", "Use another profile.")
    assert (len(node.engine.uses), node.engine.asked, node.analyser._worker) == (1, [], None)
    node.engine.use = Decision(Verdict.ALLOW, (), "r1")
    await node.items()
    history = json.loads(node.engine.uses[1].document)["history"]["last_minute"]
    assert (history["denials"], history["executions"]) == (1, 0)


async def test_policy_learns_of_a_profile_what_the_request_makes_of_it(node: Node) -> None:
    await node.items(replace(REQUEST, limits=(("pids", 8.0), ("wall_seconds", 1.0)), labels=(("a", "b"),)))
    asked = json.loads(node.engine.uses[0].document)
    assert asked["action"] == {
        "type": "profile.use",
        "isolation": "process",
        "network": "none",
        "overrides": ["pids", "wall_seconds"],
    }
    assert asked["profile"]["name"] == "default"


async def test_what_the_use_of_a_profile_demands_holds_for_what_runs_under_it(node: Node) -> None:
    use = Obligations(limits=(("wall_seconds", 2.0), ("pids", 9.0)))
    node.engine.use = Decision(Verdict.TRANSFORM, (), "r1", obligations=use)
    start = Obligations(limits=(("wall_seconds", 5.0), ("pids", 7.0)))
    node.engine.answer = Decision(Verdict.TRANSFORM, (), "r1", obligations=start)
    await node.items()
    assert json.loads(node.engine.asked[0].document)["action"]["limits"]["wall_seconds"] == 2.0
    limits = node.runtime.launches[0].limits
    assert (limits.wall_seconds, limits.pids) == (2.0, 7)


async def test_warnings_about_profile_and_start_both_reach_the_caller(node: Node) -> None:
    node.engine.use = Decision(Verdict.WARN, (Reason("old", "this profile is old"),), "r1")
    node.engine.answer = Decision(Verdict.WARN, (Reason("late", "it is late"),), "r1")
    accepted = (await node.items())[0]
    assert isinstance(accepted, Accepted)
    assert accepted.report.warnings[-2:] == ("policy warns, old: this profile is old", "policy warns, late: it is late")


async def test_a_start_tells_which_revision_allowed_its_profile_though_that_is_remembered(node: Node) -> None:
    node.engine.repeatable = True
    node.engine.use = Decision(Verdict.ALLOW, (), "fake-1", ttl_seconds=60.0)
    for _ in range(2):
        await node.items()
    assert [(event.action, event.profile_revision) for event in decided(node)] == [
        ("profile.use", ""),
        ("execution.start", "fake-1"),
        ("execution.start", "fake-1"),
    ]
    assert len(node.engine.uses) == 1


async def test_redaction_that_the_use_of_a_profile_demands_holds_for_what_runs_under_it(node: Node) -> None:
    node.engine.use = Decision(Verdict.TRANSFORM, (), "r1", obligations=Obligations(redact=("github-token",)))

    async def leak(program: FakeProgram) -> ExitStatus:
        await program.stdout(b"token " + SAMPLES["github-token"] + b"\n")
        return ExitStatus(0, None)

    node.runtime.script = leak
    printed = b"".join(item.data for item in await node.items() if isinstance(item, Chunk))
    assert printed.startswith(b"token ") and SAMPLES["github-token"] not in printed


async def test_what_a_sandbox_has_seen_is_known_while_it_lives(node: Node) -> None:
    sightings = node.executor.gate.sightings
    seen: list[Seen | None] = []

    async def look(program: FakeProgram) -> ExitStatus:
        seen.append(sightings.of(node.runtime.launches[-1].sandbox_id))
        return ExitStatus(0, None)

    node.runtime.script = look
    await node.items()
    await node.items(replace(REQUEST, stdin=b"from outside"))
    await node.executor.settled()
    assert seen == [Seen(), Seen(untrusted_input=True)]
    assert [sightings.of(launch.sandbox_id) for launch in node.runtime.launches] == [None, None]


async def test_what_is_left_to_people_of_a_profile_is_asked_apart_from_the_start(
    profiles: ProfileSet, tmp_path: Path
) -> None:
    node = Parking.at(tmp_path, profiles)
    node.engine.use, node.engine.answer = ESCALATE, Decision(Verdict.ALLOW, (), "r1")
    await node.approve(await node.denied(FULL))
    await node.denied(replace(FULL, cwd="/tmp"))
    assert isinstance((await node.items(FULL))[-1], Outcome)


async def test_denial_tells_the_agent_what_policy_says(node: Node) -> None:
    deny(node)
    assert (await node.refusal()).message_for_agent == "Do not use curl."


async def test_policy_that_escalates_is_a_denial(node: Node) -> None:
    node.engine.answer = Decision(Verdict.ESCALATE, (), "r1")
    assert isinstance(await node.refusal(), PolicyDenied)
    assert node.runtime.launches == []


@pytest.mark.parametrize("rule", ["*", "execution.requested", "policy.decided", "execution.started"])
async def test_nothing_runs_that_cannot_be_recorded(node: Node, rule: str) -> None:
    node.recorder.refuses = frozenset({rule})
    assert isinstance(await node.refusal(), AuditUnavailable)
    assert [sandbox for sandbox in node.runtime.sandboxes if sandbox.program is not None] == []
    assert (len(node.runtime.launches) == 0) == (rule != "execution.started")


async def test_result_stands_when_its_end_cannot_be_recorded(node: Node) -> None:
    node.recorder.refuses = frozenset({"execution.ended"})
    outcome = (await node.items())[-1]
    assert isinstance(outcome, Outcome) and outcome.exit_code == 0


async def test_refusal_that_cannot_be_recorded_is_still_told(node: Node) -> None:
    node.recorder.refuses = frozenset({"execution.refused"})
    assert isinstance(await node.refusal(replace(REQUEST, profile="nope")), InvalidRequest)


@pytest.mark.parametrize("error", [RuntimeFailed("no"), Overloaded("full"), OSError(24, "too many open files")])
async def test_launch_that_fails_is_on_record(node: Node, error: Exception) -> None:
    node.runtime.launch_error = error
    told = await node.refusal()
    assert type(told) is (RuntimeFailed if isinstance(error, OSError) else type(error))
    assert node.rules[-1] == "execution.refused"


async def test_sandbox_that_breaks_ends_as_runtime_failed(node: Node) -> None:
    node.runtime.prepare = lambda sandbox: setattr(sandbox, "broken", frozenset({"wait"}))
    outcome = (await node.items())[-1]
    assert isinstance(outcome, Outcome) and outcome.end_reason is EndReason.RUNTIME_FAILED
    assert node.rules[-1] == "execution.ended"
    assert node.runtime.alive == set()


async def test_bug_in_a_runtime_still_closes_the_span(node: Node) -> None:
    node.runtime.launch_error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await node.items()
    ended = node.recorder.events[-1]
    assert isinstance(ended, ExecutionEnded) and ended.end_reason == EndReason.RUNTIME_FAILED


# --- what policy changes


async def test_obligations_tighten_the_limits_of_the_run(node: Node) -> None:
    node.engine.answer = Decision(Verdict.TRANSFORM, (), "r1", obligations=Obligations(limits=(("wall_seconds", 1.0),)))
    await node.items()
    assert node.runtime.launches[0].limits.wall_seconds == 1.0


async def test_warning_of_policy_reaches_the_caller(node: Node) -> None:
    node.engine.answer = Decision(Verdict.WARN, (Reason("old", "this profile is old"),), "r1")
    accepted = (await node.items())[0]
    assert isinstance(accepted, Accepted)
    assert accepted.report.warnings[-1] == "policy warns, old: this profile is old"


# --- going away, killing, listing


async def test_closing_early_kills_the_tree_and_records_cancelled(node: Node) -> None:
    node.runtime.script = forever
    async with aclosing(node.execute()) as items:
        assert isinstance(await anext(items), Accepted)
        assert node.runtime.alive != set()
    assert node.runtime.alive == set()
    ended = node.recorder.events[-1]
    assert isinstance(ended, ExecutionEnded) and ended.end_reason == EndReason.CANCELLED


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("close", ["leave after an item", "cancel", "cancel twice"])
async def test_going_away_at_any_moment_leaves_nothing(profiles: ProfileSet, steps: int, close: str) -> None:
    async def chatty(program: FakeProgram) -> ExitStatus:
        for _ in range(3):
            await program.stdout(b"x" * 1024)
            await asyncio.sleep(0)
        return ExitStatus(0, None)

    async def consume(items: AsyncGenerator[Item, None], seen: list[Item]) -> None:
        async with aclosing(items):
            async for item in items:
                seen.append(item)
                if close == "leave after an item" and len(seen) == at:
                    return

    at = 0
    finished = False
    while not finished:
        node = Node(profiles, FakeRuntime(script=chatty, steps=steps), FakeEngine(steps=steps))
        seen: list[Item] = []
        task = asyncio.create_task(consume(node.execute(replace(REQUEST, collect=("*",))), seen))
        if close == "leave after an item":
            await asyncio.wait({task})
            finished = at > 0 and len(seen) < at
        else:
            for _ in range(at):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
        if close == "cancel twice":
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait({task})
        await node.executor.settled()
        assert node.runtime.alive == set()
        assert node.admission.running == 0
        assert node.registry.living == 0
        if "execution.requested" in node.rules:
            assert node.rules[-1] == "execution.ended"
            assert node.rules.count("execution.ended") == 1
        for sandbox in node.runtime.sandboxes:
            assert sandbox.program is None or sandbox.program._fds == ()
        at += 1
    assert at > (3 if close == "leave after an item" else 10)
    assert isinstance(seen[-1], Outcome)


async def test_killed_through_the_registry_tells_its_caller(node: Node) -> None:
    node.runtime.script = forever
    seen = []
    async for item in node.execute():
        seen.append(item)
        if isinstance(item, Accepted):
            assert node.registry.get(item.execution_id, CALLER).state is ExecutionState.RUNNING
            await node.registry.kill(item.execution_id, None, CALLER)
    assert isinstance(seen[-1], Outcome) and seen[-1].end_reason is EndReason.KILLED


async def test_ended_execution_is_listed_with_its_output(node: Node) -> None:
    accepted = (await node.items())[0]
    assert isinstance(accepted, Accepted)
    record = node.registry.get(accepted.execution_id, CALLER)
    assert record.state is ExecutionState.ENDED
    assert record.outcome is not None and record.outcome.exit_code == 0
    assert node.registry.logs(accepted.execution_id, CALLER) == (b"hello\n", b"")


async def test_refused_execution_is_not_listed(node: Node) -> None:
    deny(node)
    await node.refusal()
    assert node.registry.list(CALLER) == ()
    with pytest.raises(NotFound):
        node.registry.get(f"{1:032x}", CALLER)


async def test_node_shutdown_before_the_start_is_told(node: Node) -> None:
    node.runtime.prepare = lambda _sandbox: node.registry.end_all(EndReason.NODE_SHUTDOWN)
    accepted, outcome = await node.items()
    assert isinstance(accepted, Accepted)
    assert isinstance(outcome, Outcome) and outcome.end_reason is EndReason.NODE_SHUTDOWN
    assert node.runtime.sandboxes[0].program is None


async def test_trace_of_the_caller_is_on_every_event(node: Node) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    await node.items(replace(REQUEST, traceparent=f"00-{trace}-b7ad6b7169203331-01"))
    assert {event.trace_id for event in node.recorder.events} == {trace}


async def test_violation_has_an_event_of_its_own(node: Node) -> None:
    async def bad(_program: FakeProgram) -> ExitStatus:
        return ExitStatus(None, 31)

    node.runtime.script = bad
    outcome = (await node.items())[-1]
    assert isinstance(outcome, Outcome) and outcome.end_reason is EndReason.VIOLATION
    assert node.rules[-2:] == ["sandbox.violated", "execution.ended"]


async def test_files_that_cannot_be_put_in_are_the_callers_error(node: Node) -> None:
    def refuse(sandbox: FakeSandbox) -> None:
        async def start(*_arguments: object) -> int:
            raise InvalidRequest("cannot write 'a.txt' into the workspace: No space left on device")

        sandbox.start = start  # type: ignore[method-assign, assignment]

    node.runtime.prepare = refuse
    assert isinstance(await node.refusal(), InvalidRequest)
    assert node.rules[-1] == "execution.refused"


# --- what policy leaves to people


@dataclass
class Parking(Node):
    """A line before which people stand; `office` is where they decide."""

    office: Office | None = None

    @classmethod
    def at(cls, directory: Path, profiles: ProfileSet, wait_seconds: float = 0.0) -> "Parking":
        office = Office(directory / "approvals", wait_seconds=wait_seconds)
        return cls(profiles, engine=FakeEngine(ESCALATE), approvals=office.approvals, office=office)

    async def denied(self, request: ExecuteRequest) -> str:
        """The id of the approval that it waits for."""
        refused = await self.refusal(request)
        assert isinstance(refused, PolicyDenied) and refused.reason == "approval_required"
        assert refused.approval_id in refused.message_for_agent
        return refused.approval_id

    async def approve(self, approval_id: str) -> None:
        assert self.office is not None
        await self.office.approve(approval_id)


FULL = ExecuteRequest(
    ArgvProgram(("/bin/sh", "job.sh")),
    stdin=b"in",
    env=(("LANG", "C"),),
    files=(InputFile("job.sh", b"true"),),
    limits=(("pids", 8.0),),
)
CHANGED = [
    replace(FULL, program=ArgvProgram(("/bin/sh", "job.sh", ""))),
    replace(FULL, env=(("LANG", "D"),)),
    replace(FULL, env=(("LC_ALL", "C"),)),
    replace(FULL, stdin=b"IN"),
    replace(FULL, files=(InputFile("job.sh", b"evil"),)),
    replace(FULL, files=(InputFile("job.sh", b"true", 0o755),)),
    replace(FULL, cwd="/tmp"),
    replace(FULL, collect=("*",)),
    replace(FULL, limits=(("pids", 9.0),)),
    replace(FULL, profile="strict"),
    replace(FULL, labels=(("a", "b"),)),
]


async def test_a_parked_request_runs_once_when_it_is_repeated_after_the_approval(
    profiles: ProfileSet, tmp_path: Path
) -> None:
    node = Parking.at(tmp_path, profiles)
    approval_id = await node.denied(FULL)
    assert await node.denied(FULL) == approval_id
    assert node.runtime.launches == []
    await node.approve(approval_id)
    assert isinstance((await node.items(FULL))[-1], Outcome)
    await node.executor.settled()
    assert await node.denied(FULL) != approval_id
    assert len(node.runtime.launches) == 1


@pytest.mark.parametrize("changed", CHANGED, ids=range(len(CHANGED)))
async def test_an_approval_does_not_survive_the_change_of_one_thing(
    changed: ExecuteRequest, profiles: ProfileSet, tmp_path: Path
) -> None:
    node = Parking.at(tmp_path, profiles)
    await node.approve(await node.denied(FULL))
    await node.denied(changed)
    assert isinstance((await node.items(FULL))[-1], Outcome), "the control"


async def test_an_approver_reads_the_request_without_its_secrets(profiles: ProfileSet, tmp_path: Path) -> None:
    node = Parking.at(tmp_path, profiles)
    code = CodeProgram(profiles.get("default").interpreters[0].language, "echo $LANG")
    await node.denied(replace(FULL, program=code, env=(("LANG", "env-secret"),), stdin=b"stdin-secret"))
    assert node.office is not None
    (case,) = node.office.desk
    assert json.loads(case.asked.shown)["program"]["source"] == "echo $LANG"
    assert "secret" not in case.asked.shown
    kept = [path.read_text() for path in (tmp_path / "approvals").iterdir()]
    assert len(kept) == 1 and "secret" not in kept[0]
    requested = node.recorder.events[0]
    assert isinstance(requested, ExecutionRequested) and case.asked.shown_sha256 == requested.input_sha256
    assert (case.asked.execution_id, case.asked.trace_id) == (requested.execution_id, requested.trace_id)


async def until_parked(node: Parking) -> str:
    """The id of what an execution waits for; it holds no slot meanwhile and is not alive anywhere."""
    assert node.office is not None
    async with asyncio.timeout(30):
        while not (cases := list(node.office.desk)) or node.admission.running or not node.registry.living:
            await asyncio.sleep(0)
    assert node.runtime.alive == set()
    return cases[-1].approval_id


async def test_where_the_node_lets_it_an_execution_waits_without_a_slot(profiles: ProfileSet, tmp_path: Path) -> None:
    node = Parking.at(tmp_path, profiles, wait_seconds=600.0)
    running = asyncio.create_task(node.items())
    await node.approve(await until_parked(node))
    assert isinstance((await running)[-1], Outcome)
    assert node.rules == [
        "execution.requested",
        *("policy.decided", "policy.decided"),
        *("policy.decided", "policy.decided", "execution.started", "execution.ended"),
    ]


async def test_of_equal_requests_that_wait_one_goes_ahead_for_each_approval(
    profiles: ProfileSet, tmp_path: Path
) -> None:
    node = Parking.at(tmp_path, profiles, wait_seconds=600.0)
    waiting = [asyncio.create_task(node.items()) for _ in range(3)]
    for left in (2, 1, 0):
        await node.approve(await until_parked(node))
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting = [task for task in waiting if not task.done()]
        assert len(waiting) == left
    assert len(node.runtime.launches) == 3


@pytest.mark.parametrize("end", ["denied", "killed", "drained", "closed", "expired"])
async def test_what_waits_ends_with_the_id_of_its_approval(end: str, profiles: ProfileSet, tmp_path: Path) -> None:
    node = Parking.at(tmp_path, profiles, wait_seconds=600.0)
    assert node.office is not None
    running = asyncio.create_task(node.refusal())
    approval_id = await until_parked(node)
    match end:
        case "denied":
            await node.office.deny(approval_id)
        case "killed":
            (record,) = node.registry.list(CALLER)
            await node.registry.kill(record.execution_id, None, CALLER)
        case "drained":
            node.registry.end_all(EndReason.NODE_SHUTDOWN)
        case "closed":
            node.office.approvals.close()
        case _:
            node.office.clock.advance(900)
            await node.office.approvals.sweep()
    refused = await running
    assert isinstance(refused, PolicyDenied)
    assert (refused.reason, refused.approval_id) == ("approval_required", approval_id)
    assert node.runtime.launches == []


async def test_patience_has_an_end(profiles: ProfileSet, tmp_path: Path) -> None:
    node = Parking.at(tmp_path, profiles, wait_seconds=0.01)
    await node.denied(REQUEST)


async def test_a_client_that_goes_away_while_it_waits_leaves_nothing(profiles: ProfileSet, tmp_path: Path) -> None:
    node = Parking.at(tmp_path, profiles, wait_seconds=600.0)
    async with aclosing(node.execute()) as items:
        first = asyncio.ensure_future(anext(items))
        approval_id = await until_parked(node)
        first.cancel()
        await asyncio.wait({first})
    await node.executor.settled()
    assert (node.registry.living, node.admission.running, node.runtime.launches) == (0, 0, [])
    await node.approve(approval_id)
    assert isinstance((await node.items())[-1], Outcome), "what was granted is good for the next"


class Traced:
    """Every trace that was begun, and those that are over."""

    def __init__(self) -> None:
        self.over: list[Timeline] = []

    def __call__(self, context: TraceContext) -> Timeline:
        return Timeline(context, self.over.append)

    @property
    def steps(self) -> list[str]:
        (timeline,) = self.over
        return [str(mark.step) for mark in timeline.marks]


@pytest.fixture
def traced(node: Node) -> Traced:
    node.executor.trace = made = Traced()
    return made


def environments(node: Node) -> list[dict[str, str]]:
    return [dict(sandbox.program.plan.env) for sandbox in node.runtime.sandboxes if sandbox.program is not None]


TRACEPARENT = f"00-{'c' * 32}-{'d' * 16}-01"


async def test_each_step_is_told_in_its_order_and_once(node: Node, traced: Traced) -> None:
    await node.items(replace(REQUEST, agent=Agent(tool_name="echo")))
    await node.executor.settled()
    assert traced.steps == ["admission", "profile", "decision", "acquire", "run"]
    (timeline,) = traced.over
    facts = timeline.facts
    assert (facts.end_reason, facts.exit_code, facts.error_type, facts.verdict) == ("EXITED", 0, "", "allow")
    assert (facts.agent.tool_name, facts.tenant, facts.revision) == ("echo", "local", node.engine.revision)
    assert {event.trace_id for event in node.recorder.events} == {timeline.context.trace_id}
    assert {event.execution_id for event in node.recorder.events} == {facts.execution_id}


async def test_source_is_analysed_in_a_step_of_its_own(node: Node, traced: Traced) -> None:
    await node.items(replace(REQUEST, program=CodeProgram("python", "print(1)")))
    await node.executor.settled()
    assert traced.steps == ["admission", "profile", "analysis", "decision", "acquire", "run"]


async def test_policy_is_asked_and_the_program_runs_on_behalf_of_their_steps(node: Node, traced: Traced) -> None:
    await node.items(replace(REQUEST, traceparent=TRACEPARENT, tracestate="vendor=1"))
    await node.executor.settled()
    (timeline,) = traced.over
    spans = {str(mark.step): mark.span_id for mark in timeline.marks}
    ((use,), (asked,)) = node.engine.uses, node.engine.asked
    for question, step in ((use, "profile"), (asked, "decision")):
        parent = ("traceparent", f"00-{'c' * 32}-{spans[step]}-01")
        assert question.trace == (parent, ("tracestate", "vendor=1"))
    assert environments(node)[0]["TRACEPARENT"] == f"00-{'c' * 32}-{spans['run']}-01"


async def test_without_traces_what_the_caller_sent_is_handed_on(node: Node) -> None:
    await node.items(replace(REQUEST, traceparent=TRACEPARENT))
    assert node.engine.asked[0].trace == (("traceparent", TRACEPARENT),)
    assert environments(node)[0]["TRACEPARENT"] == TRACEPARENT
    await node.items()
    assert "TRACEPARENT" not in environments(node)[1]
    last = node.recorder.events[-1].trace_id
    assert node.engine.asked[1].trace[0][1].startswith(f"00-{last}-")


async def test_a_deny_and_a_refusal_end_their_traces_with_why(node: Node, traced: Traced) -> None:
    node.engine.answer = Decision(Verdict.DENY, (Reason("no", "no"),), "fake-1")
    await node.refusal()
    await node.refusal(replace(REQUEST, detach=True))
    denied, refused = traced.over
    assert (denied.facts.error_type, denied.facts.verdict) == ("POLICY_DENIED", "deny")
    assert [str(mark.step) for mark in denied.marks] == ["admission", "profile", "decision"]
    assert (refused.facts.error_type, refused.facts.end_reason) == ("not_supported", "")


async def test_a_trace_ends_where_nothing_can_be_recorded(node: Node, traced: Traced) -> None:
    node.recorder.refuses = frozenset({"execution.requested"})
    await node.refusal()
    (timeline,) = traced.over
    assert (timeline.facts.error_type, timeline.marks) == ("audit_unavailable", [])


async def test_who_is_quarantined_after_the_decision_runs_nothing(node: Node) -> None:
    """Policy let it, and the sandbox is made: between that and its registration the answer is looked at again."""
    barred: list[str] = []
    node.executor.gate = Gate(node.engine, barred=lambda _: "quarantined" if barred else "")
    node.runtime.prepare = lambda _: barred.append("now")
    refused = await node.refusal()
    assert refused.reason == "quarantined"
    assert node.rules[-1] == "execution.ended"
    assert node.runtime.sandboxes[0].program is None
