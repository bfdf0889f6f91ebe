"""The engine, and one test per guard: each shows what the library does without it, then what the engine does."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from regopy import Interpreter

from sandboxd.errors import PolicyInvalid, RuntimeFailed
from sandboxd.model import Decision, Verdict
from sandboxd.policy import rego, rego_process
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput
from sandboxd.settings.policy import Policy
from tests.fakes.policy import question, start

HEAD = "package sandboxd\nimport rego.v1\n"
ALLOW = 'decision := {"verdict": "allow"}'
STALL = """
default decision := {"verdict": "allow"}
decision := {"verdict": "deny"} if { some a in input.action.argv; regex.match("^(a+)+$", a) }
"""
BOMB = start(argv=("a" * 40 + "b",))


def policy(directory: Path, text: str, deadline_seconds: float = 5.0) -> Policy:
    (directory / "p.rego").write_text(HEAD + text)
    return Policy(paths=(str(directory),), deadline_seconds=deadline_seconds)


@asynccontextmanager
async def engine(directory: Path, text: str, deadline_seconds: float = 5.0) -> AsyncIterator[PolicyEngine]:
    made = await rego.create(policy(directory, text, deadline_seconds))
    try:
        yield made
    finally:
        await made.close()


def bare(text: str, document: object, *, strict: bool) -> str:
    """The library as it comes: no guards."""
    interpreter = Interpreter()
    interpreter.strict_built_in_errors = strict
    interpreter.add_module("p.rego", HEAD + text)
    bundle = interpreter.build(None, ["sandboxd/decision"])
    interpreter.set_input_term(json.dumps(document))
    return str(interpreter.query_bundle_entrypoint(bundle, "sandboxd/decision"))


def workers() -> set[int]:
    """Pids of the policy workers that are children of this process."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"rego_worker.py" in command:
            found.add(int(status.parent.name))
    return found


@pytest.fixture(autouse=True)
def no_worker_left() -> Iterator[None]:
    before = workers()
    yield
    assert workers() == before


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def until_it_answers(made: PolicyEngine) -> Decision:
    async with asyncio.timeout(20):
        while (decision := await made.decide(question())).verdict is not Verdict.ALLOW:
            await asyncio.sleep(0.01)
    return decision


# Guard 1: built-ins that fail, are not there or see something else.


@pytest.mark.parametrize("odd", ["rm\t-rf", 'say "x"', "back\\slash", "é"])
async def test_a_policy_with_patterns_is_not_asked_what_it_would_see_otherwise(tmp_path: Path, odd: str) -> None:
    """The bare library does not find the tab of `rm\\t-rf`, so what should be denied would be allowed."""
    text = f"{ALLOW} if not bad\nbad if {{ some word in input.action.argv; regex.match(`rm\\s-rf`, word) }}"
    assert '"allow"' in bare(text, {"action": {"argv": ["rm\t-rf"]}}, strict=True)
    async with engine(tmp_path, text) as made:
        decision = await made.decide(question(start(argv=(odd,))))
        assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_unavailable")
        assert "opa engine" in decision.reasons[0].message
        assert (await made.decide(question(start(argv=("rm -r",))))).verdict is Verdict.ALLOW
        assert (await made.decide(question(start(argv=("rm -rf",))))).verdict is Verdict.DENY


async def test_a_failing_builtin_denies_where_the_bare_library_allows(tmp_path: Path) -> None:
    text = f"{ALLOW} if not bad\nbad if abs(input.action.argv[0]) == 1"
    assert '"allow"' in bare(text, {"action": {"argv": ["x"]}}, strict=False)
    text = f"{ALLOW} if ok\n{ALLOW} if {{ not ok; not bad }}\n" + (
        'ok if input.action.argv[0] == "/bin/true"\nbad if abs(input.action.argv[0]) == 1'
    )
    async with engine(tmp_path, text) as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        decision = await made.decide(question(start(argv=("x",))))
        assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_unavailable")


@pytest.mark.parametrize(
    "call", ['http.send({"url": "http://x/", "method": "get"})', 'net.cidr_contains("10.0.0.0/8", "10.1.1.1")']
)
async def test_a_builtin_that_is_missing_is_refused_at_load_where_the_bare_library_allows(
    tmp_path: Path, call: str
) -> None:
    text = f"{ALLOW} if not bad\nbad if {call}"
    assert '"allow"' in bare(text, {}, strict=False)
    with pytest.raises(PolicyInvalid, match=r"p\.rego:4"):
        await rego.create(policy(tmp_path, text))


# Guard 2: how the input is handed over.


async def test_data_in_the_place_of_the_decision_is_refused_at_load(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"sandboxd": {"decision": true}}')
    with pytest.raises(PolicyInvalid, match=r"^p\.rego:3: a data file defines data\.sandboxd\.decision"):
        await rego.create(policy(tmp_path, "default decision := false"))


async def test_a_pattern_that_opa_reads_differently_is_refused_at_load_where_the_bare_library_allows(
    tmp_path: Path,
) -> None:
    text = f"{ALLOW} if not bad\nbad if regex.match(`^rm\\z`, input.action.argv[0])"
    assert '"allow"' in bare(text, {"action": {"argv": ["rm"]}}, strict=True)
    with pytest.raises(PolicyInvalid, match=r"^p\.rego:4: .* in a pattern is another thing"):
        await rego.create(policy(tmp_path, text))


def test_the_bare_library_cuts_text_at_nul_when_given_an_object() -> None:
    interpreter = Interpreter()
    interpreter.set_input({"a": "x\0forbidden"})
    assert str(interpreter.query("input.a")) == '{"expressions":["x"]}'


# Guards 3 and 4: one interpreter in one thread of one process, compiled once.


async def test_the_policy_is_compiled_once_and_the_files_are_not_read_again(tmp_path: Path) -> None:
    async with engine(tmp_path, ALLOW) as made:
        (tmp_path / "p.rego").write_text(HEAD + 'decision := {"verdict": "deny"}')
        assert (await made.decide(question())).verdict is Verdict.ALLOW


# Guard 5: expressions that backtrack, policies that abort.


async def test_a_stalling_regex_is_denied_at_the_deadline_and_the_loop_goes_on(tmp_path: Path) -> None:
    async with engine(tmp_path, STALL, deadline_seconds=0.3) as made:
        first = workers()
        stalled = asyncio.create_task(made.decide(question(BOMB)))
        behind = asyncio.create_task(made.decide(question()))
        ticks = 0
        while not stalled.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 2
        for decision in (await stalled, await behind, await made.decide(question())):
            assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_timeout")
        await until_it_answers(made)
        assert not workers() & first


async def test_the_loop_goes_on_while_a_policy_that_stalls_is_tried(tmp_path: Path) -> None:
    stalling = tmp_path / "stalling"
    stalling.mkdir()
    text = f'{ALLOW} if not bad\nbad if regex.match("^(a+)+$", concat("", ["{"a" * 40}", "b"]))'
    async with engine(tmp_path, ALLOW) as made:
        before = workers()
        creating = asyncio.create_task(rego.create(policy(stalling, text)))
        await until(lambda: workers() > before)
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        assert not creating.done()
        for pid in workers() - before:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(PolicyInvalid, match=r"does not answer a sample|did not survive"):
            await creating


async def test_a_worker_that_is_killed_is_replaced_and_meanwhile_everything_is_denied(tmp_path: Path) -> None:
    before = workers()
    async with engine(tmp_path, ALLOW) as made:
        await made.decide(question())
        (pid,) = workers() - before
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in workers())
        decision = await made.decide(question())
        assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_unavailable")
        assert (await until_it_answers(made)).verdict is Verdict.ALLOW


async def test_a_policy_that_aborts_the_compiler_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    text = "decision := x if { x := data.other.d with input as json.marshal(input) }"
    with pytest.raises(PolicyInvalid):
        await rego.create(policy(tmp_path, text))


async def test_policy_that_crashes_the_compiler_is_what_is_named(tmp_path: Path) -> None:
    deep = "[" * 20_000 + "]" * 20_000
    with pytest.raises(PolicyInvalid, match="did not survive compiling this policy: it ended with status -11"):
        await rego.create(policy(tmp_path, f"{ALLOW}\nx := {deep}"))


async def test_engine_that_ends_whatever_the_policy_is_no_fault_of_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("import no_such_module\n")
    monkeypatch.setattr(rego_process, "_SCRIPT", broken)
    with pytest.raises(RuntimeFailed, match="cannot run here, whatever the policy: it ended with status 1; "):
        await rego.create(policy(tmp_path, ALLOW))


async def test_the_worker_dies_with_the_daemon(tmp_path: Path) -> None:
    policy(tmp_path, STALL)
    script = (
        "import asyncio, sys\nfrom sandboxd.settings.policy import Policy\nfrom sandboxd.policy import rego\n"
        "made = asyncio.run(rego.create(Policy(paths=(sys.argv[1],))))\n"
        "print(made._worker.pid, flush=True)\nsys.stdin.read()"
    )
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert daemon.stdout is not None
    pid = int(await daemon.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    daemon.kill()
    await daemon.wait()
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_the_worker_has_no_environment_no_descriptors_and_limits(tmp_path: Path) -> None:
    before = workers()
    os.environ["SANDBOXD_TEST_SECRET"] = "x"
    try:
        async with engine(tmp_path, ALLOW):
            (pid,) = workers() - before
            process = Path(f"/proc/{pid}")
            assert b"SANDBOXD_TEST_SECRET" not in (process / "environ").read_bytes()
            assert sorted(str(fd.readlink()).partition(":")[0] for fd in (process / "fd").iterdir()) == [
                "/dev/null", "/dev/null", "/dev/null", "socket",
            ]  # fmt: skip
            limits = (process / "limits").read_text()
            address_space = re.search(r"Max address space +(\d+)", limits)
            mapped = re.search(r"VmSize:\s+(\d+) kB", (process / "status").read_text())
            assert address_space is not None and mapped is not None
            assert int(address_space[1]) <= int(mapped[1]) * 1024 + (1 << 30)
            assert "NoNewPrivs:\t1" in (process / "status").read_text()
    finally:
        del os.environ["SANDBOXD_TEST_SECRET"]


# Guard 6: whatever is not a decision.


@pytest.mark.parametrize("characters", [10_000, 131_071, 900_000])
async def test_the_worker_survives_long_text(tmp_path: Path, characters: int) -> None:
    text = 'default decision := {"verdict": "deny"}\ndecision := {"verdict": "allow"} if startswith(input.x, "yyy")'
    before = workers()
    async with engine(tmp_path, text) as made:
        own = workers() - before
        for _ in range(3):
            decision = await made.decide(PolicyInput(json.dumps({"x": "y" * characters}).encode()))
            assert decision.verdict is Verdict.ALLOW
        assert workers() - before == own


# Load.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decision := { if", r"p\.rego:3: "),
        ("a := 1\ndecision := [", r"p\.rego:4: "),
        ("other := 1", "sample"),
        ("decision := 1", "sample"),
        ("decision := nosuch", "sample|p.rego:3"),
        # More constants in one literal than the library's own check of what it compiled lets pass.
        (
            'decision := {"a": "b", "c": [{"d": "e", "f": "g"}], "h": "i", "j": 1.5, "k": {"l": {"m": 7}, "n": "o",'
            ' "p": ["q"], "r": {"s": 60, "t": ["u"]}}}',
            "rego-cpp gave no answer: bundle verify",
        ),
    ],
)
async def test_a_policy_that_cannot_answer_is_refused_at_load(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        await rego.create(policy(tmp_path, text))


async def test_a_policy_that_looks_at_the_moment_is_asked_each_time(tmp_path: Path) -> None:
    async with engine(tmp_path, 'decision := {"verdict": "allow", "ttl_seconds": 60} if input.time != ""') as made:
        assert not made.repeatable


async def test_a_worker_that_died_before_it_was_asked_repeats_nothing(tmp_path: Path) -> None:
    before = workers()
    async with engine(tmp_path, 'decision := {"verdict": "allow", "ttl_seconds": 60}') as made:
        assert made.repeatable
        for pid in workers() - before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not made.repeatable)


async def test_a_dead_worker_repeats_nothing(tmp_path: Path) -> None:
    async with engine(tmp_path, 'decision := {"verdict": "allow", "ttl_seconds": 60}') as made:
        before = workers()
        await made.decide(question())
        assert made.repeatable
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not made.repeatable)
        assert (await made.decide(question())).verdict is Verdict.DENY
        await until(lambda: made.repeatable)


async def test_large_questions_take_turns_and_make_no_small_one_wait_for_all_of_them(tmp_path: Path) -> None:
    async with engine(tmp_path, ALLOW) as made:
        assert isinstance(made, rego.RegoEngine) and made._worker is not None
        large = [asyncio.create_task(made.decide(question(start(argv=("a" * 20_000,))))) for _ in range(5)]
        small = asyncio.create_task(made.decide(question(start())))
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(made._worker._pending) <= 2
        assert {decision.verdict for decision in await asyncio.gather(small, *large)} == {Verdict.ALLOW}


# What was answered before.


@contextmanager
def stopped_worker() -> Iterator[None]:
    (pid,) = workers()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_what_differs_where_the_policy_does_not_look_needs_no_evaluation(tmp_path: Path) -> None:
    text = f'{ALLOW} if input.action.argv[0] == "a"\ndefault decision := {{"verdict": "deny"}}'
    async with engine(tmp_path, text, deadline_seconds=0.5) as made:
        allowed = await made.decide(question(start(argv=("a",))))
        denied = await made.decide(question(start(argv=("b",))))
        with stopped_worker():
            assert await made.decide(question(start(argv=("a",), env_names=("X",)))) == allowed
            assert await made.decide(question(start(argv=("b",)), profile="other")) == denied
            new = await made.decide(question(start(argv=("a", "b"))))
    assert (allowed.verdict, denied.verdict) == (Verdict.ALLOW, Verdict.DENY)
    assert new.reasons[0].code == "policy_timeout"


@pytest.mark.parametrize(
    "moment", ["input.time", "input.history.last_minute.executions", "input.sandbox.seen.secret", "input.action.pid"]
)
async def test_what_a_policy_says_of_the_moment_is_evaluated_each_time(tmp_path: Path, moment: str) -> None:
    text = f"{ALLOW} if not bad\nbad if {moment} == 17"
    async with engine(tmp_path, text, deadline_seconds=0.5) as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        with stopped_worker():
            assert (await made.decide(question())).reasons[0].code == "policy_timeout"


async def test_no_answer_outlives_the_worker_that_gave_it(tmp_path: Path) -> None:
    async with engine(tmp_path, ALLOW) as made:
        assert (await made.decide(question())).verdict is Verdict.ALLOW
        (pid,) = workers()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in workers())
        dead = await made.decide(question())
        assert (dead.verdict, dead.reasons[0].code) == (Verdict.DENY, "policy_unavailable")
        await until_it_answers(made)
        (pid,) = workers()
        with stopped_worker():
            assert (await made.decide(question())).verdict is Verdict.ALLOW


async def test_a_failure_is_not_said_again(tmp_path: Path) -> None:
    text = f'{ALLOW} if not bad\nbad if {{ input.action.argv[0] == "odd"; abs(input.action.argv[0]) == 1 }}'
    odd = question(start(argv=("odd",)))
    async with engine(tmp_path, text, deadline_seconds=0.5) as made:
        assert (await made.decide(odd)).reasons[0].code == "policy_unavailable"
        with stopped_worker():
            assert (await made.decide(odd)).reasons[0].code == "policy_timeout"
