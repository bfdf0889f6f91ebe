"""The daemon's end with the real worker: every way in which a source is not analysed is a finding, and passes."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandboxd.analysis.analyser import (
    _SCRIPT,
    MAX_REMEMBERED,
    MAX_SOURCE_BYTES,
    RETRY_SECONDS,
    Analyser,
    Analysis,
    _decoded,
    _MalformedError,
    code_of,
)
from sandboxd.analysis.commandline import Code
from sandboxd.analysis.report import MAX_DETAIL_CHARS, MAX_FINDINGS
from sandboxd.finding import CodeFacts, Finding, FindingCode
from sandboxd.model import ArgvProgram, CodeProgram

EVAL = Finding(FindingCode.EVAL_STRING, "eval", 1)
# A worker that is ready, and then does with the source what the first word of it says.
FAULTY = """
import os, sys, time
from sandboxd.host.confined import ANSWER, LOAD, serve

def answer(kind, body):
    if kind == LOAD:
        return ANSWER, ""
    word = body.partition(b"\\0")[2]
    if word == b"hang":
        time.sleep(600)
    if word == b"die":
        os._exit(3)
    if word == b"lie":
        return ANSWER, "nonsense"
    if word == b"fail":
        return 3, ""
    return ANSWER, '{"parsed": true, "lines": 1, "entropy": 1.0, "findings": []}'

serve(int(sys.argv[1]), int(sys.argv[2]), answer)
"""


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def patient(script: Path = _SCRIPT, clock: Callable[[], float] = time.monotonic) -> Analyser:
    """For what is not about being late."""
    return Analyser(script, deadline_seconds=60.0, wait_seconds=120.0, clock=clock)


@pytest.fixture
async def analyser() -> AsyncIterator[Analyser]:
    made = patient()
    yield made
    await made.close()


@pytest.fixture
async def faulty(tmp_path: Path) -> AsyncIterator[Analyser]:
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    made = patient(script)
    yield made
    await made.close()


async def ask(analyser: Analyser, source: str, language: str = "python", who: str = "a") -> Analysis:
    return await analyser.analyse(Code(language, source), who)


def failure(analysis: Analysis) -> str:
    """The one finding, which is that."""
    (finding,) = analysis.findings
    assert finding.code is FindingCode.FAILED and analysis.code is not None and not analysis.code.parsed
    return finding.detail


def pid(analyser: Analyser) -> int:
    assert analyser._worker is not None
    return analyser._worker.pid


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("language", "source", "finding"),
    [
        ("python", "eval(x)", EVAL),
        ("javascript", "eval(x)", EVAL),
        ("shell", "\nls", Finding(FindingCode.COMMAND, "ls", 2)),
    ],
)
async def test_a_source_is_analysed_in_its_language(
    analyser: Analyser, language: str, source: str, finding: Finding
) -> None:
    analysis = await ask(analyser, source, language)
    assert analysis.findings == (finding,)
    assert analysis.code is not None
    assert (analysis.code.language, analysis.code.bytes, analysis.code.parsed) == (language, len(source), True)


async def test_facts_are_of_the_source(analyser: Analyser) -> None:
    assert (await ask(analyser, "'é'\n")).code == CodeFacts("python", 5, 1, 1.922, parsed=True)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (CodeProgram("python", "x"), Code("python", "x")),
        (CodeProgram("bash", "x"), Code("shell", "x")),
        (CodeProgram("node", "x"), Code("javascript", "x")),
        (CodeProgram("cobol", "x"), Code("", "x")),
        (ArgvProgram(("/usr/bin/python3", "-c", "x")), Code("python", "x")),
        (ArgvProgram(("/bin/true",)), None),
        (ArgvProgram(()), None),
    ],
)
def test_the_source_of_a_program_is_found(program: ArgvProgram | CodeProgram, code: Code | None) -> None:
    assert code_of(program) == code


# What is never sent to the worker.


@pytest.mark.parametrize(
    ("language", "source", "reason"),
    [
        ("", "STOP RUN.", "unknown_language"),
        ("python", "x" * (MAX_SOURCE_BYTES + 1), "too_large"),
        ("python", "é" * (MAX_SOURCE_BYTES // 2 + 1), "too_large"),
        ("shell", "x" * (50 << 20), "too_large"),
        ("shell", "ls\0", "not_text"),
        ("javascript", "'\ud800'", "not_text"),
    ],
    ids=lambda value: value[:12],
)
async def test_what_is_no_source_to_read_is_told_and_not_sent(
    analyser: Analyser, language: str, source: str, reason: str
) -> None:
    analysis = await ask(analyser, source, language)
    assert failure(analysis) == reason
    size = len(source.encode("utf-8", "surrogatepass"))
    assert analysis.code == CodeFacts(language, size, -1, -1.0, parsed=False)
    assert analyser._worker is None


async def test_a_source_of_the_largest_size_is_read(analyser: Analyser) -> None:
    assert (await ask(analyser, "#" * MAX_SOURCE_BYTES)).findings == ()


# What may do the worker harm.


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "(" * 100_000),
        ("python", "-" * 100_000 + "1"),
        ("python", "x = " + "9" * 100_000),
        ("python", "f'{" * 30_000),
        ("python", "x" + ".a" * 30_000),
        ("python", "lambda:" * 18_000 + "1"),
        ("shell", "(" * 100_000),
        ("shell", "$(" * 60_000),
        ("shell", "`" * 100_000),
        ("shell", "<<a " * 30_000),
        ("javascript", "(" * 100_000),
        ("javascript", "a=>" * 40_000),
        ("javascript", "`${" * 40_000),
        ("javascript", "<" * 100_000),
    ],
    ids=lambda value: value[:12],
)
async def test_a_pathological_source_fails_and_the_next_one_is_analysed(
    analyser: Analyser, language: str, source: str
) -> None:
    assert failure(await ask(analyser, source, language)) in {"syntax", "too_deep", "crashed"}
    assert (await ask(analyser, "eval(x)")).findings == (EVAL,)


@pytest.mark.parametrize(
    ("language", "source", "findings"),
    [
        ("python", "a" + "=b" * 60_000, set()),
        ("python", f"x='{'a' * 60_000}'\n" + "x + x\n" * 10_000, set()),
        ("shell", "env " * 30_000 + "a", {Finding(FindingCode.COMMAND, name, 1) for name in ("env", "a")}),
        ("shell", "a $(" * 9_000 + "a" + ")" * 9_000, {Finding(FindingCode.COMMAND, "a", 1)}),
        ("javascript", "a=" * 30_000 + "b", set()),
        ("javascript", "eval(" * 20_000 + ")" * 20_000, {EVAL}),
        ("javascript", f"x='{'a' * 60_000}';" + "x+'';" * 10_000, set()),
        (
            "shell",
            "sh|" * 40_000 + "sh",
            {Finding(FindingCode.EVAL_STRING, "sh", 1), Finding(FindingCode.COMMAND, "sh", 1)},
        ),
    ],
    ids=["assignments", "texts", "wrappers", "substitutions", "js-assignments", "js-calls", "js-texts", "pipes"],
)
async def test_a_long_source_that_is_sound_is_analysed(
    analyser: Analyser, language: str, source: str, findings: set[Finding]
) -> None:
    analysis = await ask(analyser, source, language)
    assert set(analysis.findings) == findings
    assert analysis.code is not None and analysis.code.parsed


async def test_a_worker_that_is_killed_while_it_reads_fails_that_source_alone(faulty: Analyser) -> None:
    await faulty.start()
    first = pid(faulty)
    hanging = asyncio.create_task(ask(faulty, "hang"))
    behind = asyncio.create_task(ask(faulty, "x"))
    await until(lambda: faulty._turns.taken)
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    assert failure(await hanging) == "crashed"
    assert (await behind).findings == ()
    assert pid(faulty) != first


async def test_a_worker_that_is_killed_between_two_sources_is_nobodys_fault(analyser: Analyser) -> None:
    await analyser.start()
    os.kill(pid(analyser), signal.SIGKILL)
    worker = analyser._worker
    await until(lambda: worker is not None and not worker.alive)
    assert (await ask(analyser, "eval(x)")).findings == (EVAL,)


@pytest.mark.parametrize(
    ("word", "reason"), [("hang", "timeout"), ("die", "crashed"), ("lie", "crashed"), ("fail", "crashed")]
)
async def test_a_worker_that_misbehaves_is_replaced(faulty: Analyser, word: str, reason: str) -> None:
    await faulty.start()
    faulty._deadline_seconds = 0.2 if word == "hang" else 60.0
    first = pid(faulty)
    assert failure(await ask(faulty, word)) == reason
    faulty._deadline_seconds = 60.0
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert (await ask(faulty, "x")).findings == ()


async def test_who_waits_too_long_for_others_is_told_so(faulty: Analyser) -> None:
    await faulty.start()
    faulty._wait_seconds, faulty._deadline_seconds = 0.0, 2.0
    hanging = asyncio.create_task(ask(faulty, "hang"))
    await until(lambda: faulty._turns.taken)
    assert failure(await ask(faulty, "x")) == "busy"
    assert failure(await hanging) == "timeout"
    faulty._wait_seconds = faulty._deadline_seconds = 60.0
    assert (await ask(faulty, "x")).findings == ()


async def test_who_has_many_slow_sources_keeps_no_other_waiting_for_all_of_them(faulty: Analyser) -> None:
    await faulty.start()
    faulty._deadline_seconds = 0.5
    slow = [asyncio.create_task(ask(faulty, "hang")) for _ in range(20)]
    await until(lambda: faulty._turns.taken)
    assert (await ask(faulty, "x", who="b")).findings == ()
    assert sum(task.done() for task in slow) <= 1
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)


async def test_a_slow_source_that_nobody_waits_for_any_more_is_not_paid_for_by_the_next(faulty: Analyser) -> None:
    await faulty.start()
    first = pid(faulty)
    hanging = asyncio.create_task(ask(faulty, "hang"))
    await until(lambda: faulty._worker is not None and bool(faulty._worker._pending))
    hanging.cancel()
    await asyncio.wait({hanging})
    assert (await ask(faulty, "x", who="b")).findings == ()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


async def test_failures_of_the_moment_are_not_remembered(faulty: Analyser) -> None:
    assert failure(await ask(faulty, "die")) == "crashed"
    script = faulty._script
    script.write_text(script.read_text().replace("os._exit(3)", "pass"))
    assert (await ask(faulty, "die")).findings == ()


async def test_without_a_worker_every_source_is_told_unavailable_until_one_can_be_started(tmp_path: Path) -> None:
    script, clock = tmp_path / "worker.py", Time()
    script.write_text("import no_such_module")
    made = patient(script, clock)
    try:
        await made.start()
        assert failure(await ask(made, "x")) == "unavailable"
        script.write_text(FAULTY)
        assert failure(await ask(made, "x")) == "unavailable"
        clock.now += RETRY_SECONDS
        assert (await ask(made, "x")).findings == ()
    finally:
        await made.close()


async def test_a_closed_analyser_leaves_no_worker_and_starts_none(analyser: Analyser) -> None:
    await analyser.start()
    first = pid(analyser)
    await analyser.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert failure(await ask(analyser, "x")) == "unavailable"
    await analyser.close()


# What is remembered.


async def test_the_same_source_is_not_read_again(analyser: Analyser) -> None:
    first = await ask(analyser, "eval(x)")
    await analyser.close()
    assert await ask(analyser, "eval(x)") is first
    assert failure(await ask(analyser, "eval(y)")) == "unavailable"


async def test_the_same_text_in_another_language_or_of_another_caller_is_another_source(analyser: Analyser) -> None:
    await ask(analyser, "eval(x)")
    assert (await ask(analyser, "eval(x)", "javascript")).code != (await ask(analyser, "eval(x)")).code
    await analyser.close()
    assert failure(await ask(analyser, "eval(x)", who="b")) == "unavailable"


async def test_of_too_many_the_one_unused_for_longest_is_forgotten(faulty: Analyser) -> None:
    for number in range(MAX_REMEMBERED):
        await ask(faulty, str(number))
    await ask(faulty, "0")
    await ask(faulty, "one more")
    await faulty.close()
    assert len(faulty._remembered) == MAX_REMEMBERED
    assert (await ask(faulty, "0")).findings == ()
    assert failure(await ask(faulty, "1")) == "unavailable"


# What the worker says.

GOOD = {"parsed": True, "lines": 1, "entropy": 1.0, "findings": [["import", "os", 1]]}


def test_an_answer_is_decoded() -> None:
    answer = _decoded(json.dumps(GOOD))
    assert answer.findings == (Finding(FindingCode.IMPORT, "os", 1),)
    assert answer.measured == (1, 1.0, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        json.dumps({**GOOD, "lines": -1}),
        json.dumps({**GOOD, "lines": 1e3}),
        json.dumps({**GOOD, "lines": MAX_SOURCE_BYTES + 1}),
        json.dumps({**GOOD, "entropy": 9.0}),
        json.dumps({**GOOD, "entropy": float("nan")}),
        json.dumps({**GOOD, "parsed": 1}),
        json.dumps({**GOOD, "findings": [["import", "os", 1]] * (MAX_FINDINGS + 1)}),
        json.dumps({**GOOD, "findings": [["allow", "os", 1]]}),
        json.dumps({**GOOD, "findings": [["import", "os"]]}),
        json.dumps({**GOOD, "findings": [["import", "os", -1]]}),
        json.dumps({**GOOD, "findings": [["import", "x" * (MAX_DETAIL_CHARS + 1), 1]]}),
        json.dumps({**GOOD, "findings": [["import", "\ud800", 1]]}),
        json.dumps({"parsed": True}),
    ],
    ids=lambda text: text[:60],
)
def test_what_no_worker_of_ours_would_say_is_not_believed(text: str) -> None:
    with pytest.raises(_MalformedError):
        _decoded(text)
