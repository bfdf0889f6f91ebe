"""The daemon's end of static analysis: findings and facts for a program that is source, or has source in an argument.

Parses nothing itself and never raises: whatever keeps a source from being analysed is a finding, `analysis.failed`, for
policy to see. One source at a time goes to the worker, so that what is slow or kills it fails itself alone; nobody
waits for more than one source of each other caller. Called by `execution` once the request is on record.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandboxd.analysis.commandline import LANGUAGES, Code, code_in
from sandboxd.analysis.report import MAX_DETAIL_CHARS, MAX_FINDINGS
from sandboxd.analysis.turns import Turns
from sandboxd.finding import CodeFacts, Failure, Finding, FindingCode
from sandboxd.model import ArgvProgram, CodeProgram
from sandboxd.policy.rego_process import Status, Worker, WorkerGone, WorkerLate

MAX_SOURCE_BYTES = 128 * 1024
DEADLINE_SECONDS = 1.0  # for one source; the largest ordinary one takes half of it
WAIT_SECONDS = 2.0  # for those before it, and for a new worker
RETRY_SECONDS = 5.0  # until a worker that could not be started is tried again
MAX_REMEMBERED = 512
WHOLE, PARTLY, REMEMBERED = "whole", "partly", "remembered"
OUTCOMES = (WHOLE, PARTLY, REMEMBERED, *(failure.value for failure in Failure))
_SCRIPT = Path(__file__).with_name("worker.py")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Analysis:
    """`code` is None for a program that has no source to look at."""

    findings: tuple[Finding, ...]
    code: CodeFacts | None


NOTHING = Analysis((), None)


def code_of(program: ArgvProgram | CodeProgram) -> Code | None:
    if isinstance(program, ArgvProgram):
        return code_in(program.argv)
    return Code(LANGUAGES.get(program.language, ""), program.source)


class Analyser:
    """Bound to the event loop that asks first. `clock` is monotonic seconds."""

    def __init__(
        self,
        script: Path = _SCRIPT,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._script = script
        self._deadline_seconds = deadline_seconds
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._worker: Worker | None = None
        self._turns = Turns()
        self._not_before = 0.0
        self._closed = False
        self._remembered: OrderedDict[bytes, Analysis] = OrderedDict()
        self.outcomes: Counter[str] = Counter()  # each of OUTCOMES

    async def start(self) -> None:
        """So that the first source need not wait for it. What goes wrong is logged, and tried again when one comes."""
        await self._turns.acquire("")
        try:
            await self._living()
        finally:
            self._turns.release()

    async def close(self) -> None:
        """Idempotent; from then on nothing is analysed."""
        self._closed = True
        await self._turns.acquire("")
        try:
            await self._drop()
        finally:
            self._turns.release()

    async def analyse(self, code: Code, who: str) -> Analysis:
        """What was found before is remembered for each caller apart: `who` asks must not learn what others run."""
        try:
            source = code.text.encode()
        except UnicodeEncodeError:
            return self._failed(code.language, len(code.text.encode("utf-8", "surrogatepass")), Failure.NOT_TEXT)
        if not code.language:
            return self._failed("", len(source), Failure.UNKNOWN_LANGUAGE)
        if len(source) > MAX_SOURCE_BYTES:
            return self._failed(code.language, len(source), Failure.TOO_LARGE)
        if b"\0" in source:
            return self._failed(code.language, len(source), Failure.NOT_TEXT)
        question = code.language.encode() + b"\0" + source
        key = hashlib.sha256(who.encode("utf-8", "surrogatepass") + b"\0" + question).digest()
        if (known := self._remembered.get(key)) is not None:
            self._remembered.move_to_end(key)
            self.outcomes[REMEMBERED] += 1
            return known
        answer = await self._asked(question, who)
        if isinstance(answer, Failure):
            return self._failed(code.language, len(source), answer)
        analysis = Analysis(answer.findings, CodeFacts(code.language, len(source), *answer.measured))
        self._keep(key, analysis)
        self.outcomes[WHOLE if answer.measured[2] else PARTLY] += 1
        return analysis

    def _failed(self, language: str, size: int, failure: Failure) -> Analysis:
        self.outcomes[failure.value] += 1
        finding = Finding(FindingCode.FAILED, failure.value, 0)
        return Analysis((finding,), CodeFacts(language, size, -1, -1.0, parsed=False))

    def _keep(self, key: bytes, analysis: Analysis) -> None:
        self._remembered[key] = analysis
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _asked(self, question: bytes, who: str) -> "_Answer | Failure":
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._turns.acquire(who)
        except TimeoutError:
            return Failure.BUSY
        try:
            return await self._answered(question)
        finally:
            self._turns.release()

    async def _answered(self, question: bytes) -> "_Answer | Failure":
        worker = await self._living()
        if worker is None:
            return Failure.UNAVAILABLE
        try:
            answer = await worker.ask(question, self._deadline_seconds)
            if answer.status is Status.ANSWER:
                return _decoded(answer.text)
            failure = Failure.CRASHED
        except WorkerLate:
            failure = Failure.TIMEOUT
        except (WorkerGone, _MalformedError):
            failure = Failure.CRASHED
        except asyncio.CancelledError:
            await self._drop()  # it may be at that source for long, and the next one is not to pay for it
            raise
        log.warning("a source could not be analysed", extra={"reason": failure.value})
        await self._drop()
        return failure

    async def _living(self) -> Worker | None:
        """The worker, a new one if it is gone; None if there is none to be had now."""
        if self._worker is not None and not self._worker.alive:
            await self._drop()  # it died while nobody asked: no fault of the next source
        if self._worker is None and not self._closed and self._clock() >= self._not_before:
            try:
                self._worker = await asyncio.to_thread(_start, self._script)
            except (WorkerGone, WorkerLate, OSError) as error:
                log.error("source cannot be analysed", extra={"error": str(error)})
                self._not_before = self._clock() + RETRY_SECONDS
        return self._worker

    async def _drop(self) -> None:
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.abandon(late=False)
            await asyncio.to_thread(worker.kill)


def _start(script: Path) -> Worker:
    """One that has read a source of each language. Blocking."""
    worker = Worker.start(script)
    with contextlib.ExitStack() as undo:
        undo.callback(worker.kill)
        if worker.load(b"").status is not Status.ANSWER:
            raise WorkerGone("it cannot read its languages")
        undo.pop_all()
    return worker


class _MalformedError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Answer:
    findings: tuple[Finding, ...]
    measured: tuple[int, float, bool]


def _decoded(text: str) -> _Answer:
    """Whoever took over the worker writes this: only what it would say itself is believed."""
    try:
        match json.loads(text):
            case {"parsed": bool(parsed), "lines": int(lines), "entropy": float(entropy), "findings": list(rows)}:
                pass
            case other:
                raise _MalformedError(f"{other!r:.80}")
        if not 0 <= lines <= MAX_SOURCE_BYTES or not 0 <= entropy <= 8 or len(rows) > MAX_FINDINGS:
            raise _MalformedError("a number out of bounds")
        return _Answer(tuple(map(_finding, rows)), (lines, entropy, parsed))
    except (ValueError, RecursionError) as error:
        raise _MalformedError(str(error)) from error


def _finding(row: object) -> Finding:
    match row:
        case [str(code), str(detail), int(line)] if 0 <= line <= MAX_SOURCE_BYTES and len(detail) <= MAX_DETAIL_CHARS:
            detail.encode()  # ValueError for half a character, which no document can hold
            return Finding(FindingCode(code), detail, line)
        case _:
            raise _MalformedError(f"{row!r:.80}")
