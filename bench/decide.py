"""What a decision costs: the engine alone and the whole gate, embedded and a real OPA server, by number of rules.

The engines take turns question by question. Rules are of the shape that people write and none of them holds. Each
question is new to the rules (the words of the program are), but where it says that what they read was asked before, or
that the policy lets its answer be taken again (remembered). Called by `__main__`.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from bench import report
from bench.host import say
from bench.ours import Ours
from sandboxd.gate import Gate, Subject
from sandboxd.model import Decision
from sandboxd.policy import opa, rego
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput, ProfileFacts, SandboxFacts
from sandboxd.settings.policy import Opa, Policy
from tests.fakes.policy import CALLER, question, start
from tests.opa import opa_on_socket

RULES = (1, 20, 200)
WARM_QUESTIONS = 50
SUBJECT = Subject(ProfileFacts("default", "0" * 64, ()), SandboxFacts("0" * 32, "process"))
_HEAD = """package sandboxd

import rego.v1

default decision := {"verdict": "deny"}

decision := {"verdict": "allow"} if count(deny) == 0
"""
_RULE = """
deny contains {{"code": "c{0}", "message": "M{0}"}} if {{
	input.action.type == "execution.start"
	input.caller.tenant == "tenant-{0}"
	some word in input.action.argv
	startswith(word, "/opt/{0}/")
}}
"""


@dataclass(slots=True)
class Asked:
    """Milliseconds of each question to one of them."""

    name: str
    ask: Callable[[], Awaitable[object]]
    times: list[float] = field(default_factory=list)


def decisions(nodes: Sequence[Ours], rounds: int) -> None:
    """Tables, and the share of the gate in the cheapest Execute of those nodes."""
    path = os.environ.get("SANDBOXD_TEST_OPA") or shutil.which("opa")
    if path is None:
        say("- opa: missing; build it with .ci/build-opa and name it in SANDBOXD_TEST_OPA\n")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the daemon's
        medians = {rules: runner.run(_with_rules(rules, rounds, remote=path is not None)) for rules in RULES}
    rows = []
    for node in nodes:
        runs = [node.execute(["/bin/true"])[0].total for _ in range(rounds)]
        execute = report.percentile(runs, 0.5)
        rows += [
            (f"{node.name}, {rules} rules", f"{execute:.2f}", *(f"{times[name] / execute:.1%}" for name in _GATES))
            for rules, times in medians.items()
        ]
    say("### The gate in one Execute of `/bin/true` (milliseconds, and its share)\n")
    report.table(("", "Execute", *_GATES), rows)


_GATES = ("gate, embedded", "gate, asked before", "gate, remembered")
_MANY = 100_000


async def _with_rules(rules: int, rounds: int, *, remote: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="sandboxd-bench-") as name, contextlib.ExitStack() as server:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "policy.rego").write_text(_HEAD + "".join(_RULE.format(number) for number in range(rules)))
        engines = [("embedded", await rego.create(Policy(paths=(name,))))]
        if remote:
            url = server.enter_context(opa_on_socket([directory])).url
            engines.append(("OPA server", await opa.create(Policy(engine="opa", opa=Opa(url=url)))))
        asked = [one for kind, engine in engines for one in _of(kind, engine)]
        asked.append(Asked(_GATES[1], _asked_before(engines[0][1])))
        asked.append(Asked(_GATES[2], _remembering(engines[0][1])))
        try:
            for number in range(-WARM_QUESTIONS, 10 * rounds):
                for one in asked:
                    began = time.perf_counter()
                    await one.ask()
                    if number >= 0:
                        one.times.append((time.perf_counter() - began) * 1000)
        finally:
            for _, engine in engines:
                await engine.close()
    say(f"### A decision of {rules} rules (milliseconds)\n")
    first = report.percentile(asked[0].times, 0.5)
    report.table(("", "p50", "p99", "/ embedded engine"), [_row(one, first) for one in asked])
    return {one.name: report.percentile(one.times, 0.5) for one in asked}


def _of(kind: str, engine: PolicyEngine) -> Iterator[Asked]:
    documents = (question(start(("/bin/echo", f"{kind} {number}"))) for number in range(_MANY))
    actions = (start(("/bin/true", f"{kind} {number}")) for number in range(_MANY))
    gate = Gate(engine)
    yield Asked(f"engine, {kind}", lambda: engine.decide(next(documents)))
    yield Asked(f"gate, {kind}", lambda: gate.decide(next(actions), CALLER, SUBJECT))


def _asked_before(engine: PolicyEngine) -> Callable[[], Awaitable[object]]:
    """Always the same words; what differs, no rule looks at."""
    gate = Gate(engine)
    names = (f"NAME_{number}" for number in range(_MANY))
    return lambda: gate.decide(start(env_names=(next(names),)), CALLER, SUBJECT)


def _remembering(engine: PolicyEngine) -> Callable[[], Awaitable[object]]:
    gate = Gate(_Lasting(engine))
    return lambda: gate.decide(start(), CALLER, SUBJECT)


class _Lasting:
    """An engine whose answers are good for a while."""

    repeatable = answering = True

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self.name, self.revision = engine.name, engine.revision

    async def decide(self, document: PolicyInput) -> Decision:
        return replace(await self._engine.decide(document), ttl_seconds=60.0)

    async def close(self) -> None:
        await self._engine.close()


def _row(asked: Asked, first: float) -> tuple[str, ...]:
    p50, p99 = (report.percentile(asked.times, share) for share in (0.5, 0.99))
    return asked.name, f"{p50:.3f}", f"{p99:.3f}", f"{p50 / first:.2f}"
