"""The embedded Rego engine: `data.sandboxd.decision`, evaluated by rego-cpp in a worker process.

The worker is killed at its deadline and started again; until it has loaded the policy every decision is a deny. Never
evaluates in the daemon itself. Found by name through `plugin`; protocol and confinement are in `rego_worker`.
"""

import asyncio
import json
import re

from sandboxd.errors import PolicyInvalid, RuntimeFailed
from sandboxd.model import Decision
from sandboxd.policy.base import UNDEFINED, PolicyEngine, decode_decision, refusal
from sandboxd.policy.document import MAX_DOCUMENT_BYTES, PolicyInput
from sandboxd.policy.rego_answers import Answers
from sandboxd.policy.rego_builtins import MEETS_ESCAPES, calls_any, check_calls
from sandboxd.policy.rego_bundle import Bundle, read_bundle
from sandboxd.policy.rego_literals import check_literals
from sandboxd.policy.rego_negation import check_negations
from sandboxd.policy.rego_overlap import check_overlap
from sandboxd.policy.rego_patterns import check_patterns
from sandboxd.policy.rego_process import Answer, Status, Worker, WorkerGone, WorkerLate
from sandboxd.policy.rego_reads import reader, reads_the_moment
from sandboxd.policy.sample import samples
from sandboxd.settings.policy import Policy

ENTRYPOINT = "sandboxd/decision"
NOT_PLAIN = (
    "the policy matches patterns, which in the embedded engine do not see quotes, backslashes, control characters and"
    " what is not ASCII as they are, and the input has some; use the opa engine for this policy"
)
_LARGE_BYTES = 16 * 1024  # they take long, and so turns: many of one caller's would make the others' late
_RESTART_FIRST_SECONDS = 0.05
_RESTART_MOST_SECONDS = 5.0


class RegoEngine:
    """Bound to the event loop that asks first. Made by `create`."""

    name = "rego"

    def __init__(self, bundle: Bundle, worker: Worker, deadline_seconds: float) -> None:
        self.revision = bundle.revision
        self._bundle = bundle
        self._worker: Worker | None = worker
        self._deadline_seconds = deadline_seconds
        self._reads_the_moment = reads_the_moment(bundle.modules)
        self._read = reader(bundle.modules)
        # Of a policy that looks at nothing but the question, one answer follows from what it reads of that.
        self._answers = None if self._reads_the_moment else Answers()
        self._meets_escapes = calls_any(bundle.modules, MEETS_ESCAPES)
        self._large = asyncio.Lock()
        self._restarting: asyncio.Task[None] | None = None
        self._cause = ""
        self._closed = False

    @property
    def bundle(self) -> Bundle:
        """What it decides by."""
        return self._bundle

    @property
    def repeatable(self) -> bool:
        return not self._reads_the_moment and self.answering

    @property
    def answering(self) -> bool:
        return self._worker is not None and self._worker.alive

    async def decide(self, document: PolicyInput) -> Decision:
        if len(document.document) > MAX_DOCUMENT_BYTES:
            return self._refusal("policy_unavailable", f"the input is over {MAX_DOCUMENT_BYTES} bytes")
        if len(document.document) <= _LARGE_BYTES:
            return await self._decided(document)
        async with self._large:
            return await self._decided(document)

    async def _decided(self, document: PolicyInput) -> Decision:
        if self._meets_escapes and not _is_plain(document.document):
            return self._refusal("policy_unavailable", NOT_PLAIN)
        worker, answers = self._worker, self._answers
        if worker is None:
            return self._refusal(self._cause, "the policy worker is being started again")
        question = self._read(document.document)
        if answers is not None and worker.alive and (known := answers.to(question)) is not None:
            return known
        try:
            answer = await worker.ask(question, self._deadline_seconds)
        except WorkerLate:
            self._replace(worker, "policy_timeout")
            return self._refusal("policy_timeout", f"no decision within {self._deadline_seconds} seconds")
        except WorkerGone:
            self._replace(worker, "policy_unavailable")
            return self._refusal("policy_unavailable", "the policy worker died")
        decision = _decision(answer, self.revision)
        if answers is not None and answer.status is Status.ANSWER:
            answers.keep(question, decision)
        return decision

    async def close(self) -> None:
        self._closed = True
        if self._restarting is not None:
            await self._restarting
        if self._worker is not None:
            worker, self._worker = self._worker, None
            self._cause = "policy_unavailable"
            await worker.drain()
            await asyncio.to_thread(worker.kill)

    def _refusal(self, code: str, message: str) -> Decision:
        return refusal(code, message, self.revision)

    def _replace(self, worker: Worker, cause: str) -> None:
        """Only the first of those who find it late or dead replaces it."""
        if self._worker is worker:
            self._worker, self._cause = None, cause
            if self._answers is not None:
                self._answers = Answers()  # whatever befell that worker, nothing that it said is said again
            self._restarting = asyncio.create_task(self._restart(worker))

    async def _restart(self, former: Worker) -> None:
        former.abandon(late=self._cause == "policy_timeout")
        await asyncio.to_thread(former.kill)
        pause = _RESTART_FIRST_SECONDS
        while not self._closed:
            try:
                self._worker = await asyncio.to_thread(_start, self._bundle)
                return
            except (PolicyInvalid, RuntimeFailed, OSError):
                # It compiled before, so this is the node (memory, processes); denies go on meanwhile.
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RESTART_MOST_SECONDS)


def _is_plain(document: bytes) -> bool:
    """Whether each of its strings is the same as text, as JSON and in bytes."""
    return document.isascii() and b"\\" not in document


async def create(settings: Policy) -> PolicyEngine:
    """Read, check, compile and try the policy, while the loop goes on. PolicyInvalid with file and line."""
    bundle = await asyncio.to_thread(_read, settings)
    worker = Worker.start()  # here: it dies with the thread that started it
    try:
        await asyncio.to_thread(_try, worker, bundle)
    except BaseException:
        worker.kill()
        raise
    return RegoEngine(bundle, worker, settings.deadline_seconds)


def _read(settings: Policy) -> Bundle:
    bundle = read_bundle(settings.bundle_paths, settings.key_path)
    check_calls(bundle.modules)
    check_literals(bundle.modules)
    check_negations(bundle.modules)
    check_overlap(bundle.modules, bundle.data_json)
    check_patterns(bundle.modules, bundle.data_json)
    return bundle


def _try(worker: Worker, bundle: Bundle) -> None:
    _compile(worker, bundle)
    # The first evaluation touches pages that later ones find there, so it has more time.
    _prove(bundle, worker)


def _start(bundle: Bundle) -> Worker:
    """A worker that has loaded it."""
    worker = Worker.start()
    try:
        _compile(worker, bundle)
    except BaseException:
        worker.kill()
        raise
    return worker


def _compile(worker: Worker, bundle: Bundle) -> None:
    """PolicyInvalid if it is the policy's fault that it cannot, RuntimeFailed if no worker can here."""
    try:
        answer = _load(worker, bundle.modules, bundle.data_json)
    except (WorkerGone, WorkerLate) as error:
        worker.kill()  # it may hold what the next one needs
        _require_engine()
        raise PolicyInvalid(f"the policy engine did not survive compiling this policy: {error}") from error
    if answer.status is not Status.ANSWER:
        raise PolicyInvalid(_located(answer.text, bundle))


def _load(worker: Worker, modules: tuple[tuple[str, str], ...], data_json: str) -> Answer:
    body = {"modules": modules, "data": data_json, "entrypoint": ENTRYPOINT}
    return worker.load(json.dumps(body).encode())


def _require_engine() -> None:
    """RuntimeFailed if the engine does not even take the simplest policy."""
    worker = Worker.start()
    try:
        _load(worker, (("simplest.rego", "package sandboxd\n\ndecision := 1\n"),), "{}")
    except (WorkerGone, WorkerLate) as error:
        raise RuntimeFailed(
            f"the policy engine cannot run here, whatever the policy: {error}; free memory, or install regopy anew",
            reason="policy_engine_failed",
        ) from error
    finally:
        worker.kill()


def _prove(bundle: Bundle, worker: Worker) -> None:
    read = reader(bundle.modules)
    for sample in samples():
        try:
            decision = _decision(worker.try_out(read(sample.question.document)), bundle.revision)
        except (WorkerGone, WorkerLate) as error:
            raise PolicyInvalid(f"the policy does not answer a sample input: {error}") from error
        if problem := sample.objection(decision):
            raise PolicyInvalid(f"{problem}; define data.{ENTRYPOINT.replace('/', '.')} for every input")


def _decision(answer: Answer, revision: str) -> Decision:
    match answer.status:
        case Status.UNDEFINED:
            return decode_decision(UNDEFINED, revision)
        case Status.FAILED:
            return refusal("policy_unavailable", f"the policy could not be evaluated: {answer.text}", revision)
        case Status.ANSWER:
            return decode_decision(_expression(answer.text), revision)


def _expression(text: str) -> object:
    """The one expression of the one result; anything else comes back as it is, for the decoder to refuse."""
    try:
        output = json.loads(text)
    except (ValueError, RecursionError):
        return text
    match output:
        case {"expressions": [value], **others} if not others:
            return value
        case _:
            return output


def _located(text: str, bundle: Bundle) -> str:
    """rego-cpp names a byte offset (`(error 9:pol.rego|44|1 (errormsg 16:this is unclosed)`); a person wants a line."""
    found = re.search(r"\(error \d+:(?P<path>[^|]+)\|(?P<offset>\d+)\|\d+\s*\(errormsg \d+:(?P<message>[^)]*)", text)
    source = dict(bundle.modules).get(found["path"]) if found else None
    if found is None or source is None:
        return f"policy does not compile: {' '.join(text.split())[:500]}"
    line = source.encode()[: int(found["offset"])].count(b"\n") + 1
    return f"{found['path']}:{line}: {found['message'].strip()}"
