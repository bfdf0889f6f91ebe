"""The embedded engine and a real OPA server are asked the same, generated questions, and must decide the same.

The questions hold what breaks parsers and bindings: NUL, quotes, astral characters, integers beyond 64 bits, empty
keys, nesting. What differs all the same stands in docs/policy.md, and a guard refuses it at load.
"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandboxd.model import Decision, Verdict
from sandboxd.policy import opa, rego
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput
from sandboxd.policy.sample import samples
from sandboxd.settings.policy import Opa, Policy
from tests.opa import opa_on_socket

HERE = Path(__file__).resolve().parent
POLICIES = HERE.parents[2] / "policies"
QUESTIONS = 2000
AMPLE = 60.0  # seconds

CHARACTERS = [
    *("", "a", "B", "/", ".", "-", "_", " ", "\0", '"', "\\", "\n", "\t", "\x1b", "\x7f"),
    *("é", "e\u0301", "ß", "İ", "\u2028", "\ufeff", "\uffff", "😀", "𝔘", "\U0010ffff"),
    *("\\u0041", "%s", "${x}", "</script>"),
]
NUMBERS = [
    *(0, 1, -1, 7, 9, 10, 100, 101, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64, 2**64 + 1),
    *(-(2**63), -(2**63) - 1, 10**30, 10**30 + 1),
    *(0.5, 1.5, -0.5, 0.1, 1e-7, 123456.789, 1e15, 1e21),
]
TEXTS = [
    *("default", "local", "operator", "uid:0", "none", "loopback", "process", "gvisor", "true", "12"),
    *("AWS_SECRET_ACCESS_KEY", "api_token", "PATH"),
]


def text(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return rng.choice(TEXTS)
    return "".join(rng.choice(CHARACTERS) for _ in range(rng.randrange(6)))


def value(rng: random.Random, depth: int = 0) -> Any:
    match rng.randrange(7 if depth < 4 else 5):
        case 0 | 1:
            return text(rng)
        case 2:
            return rng.choice(NUMBERS)
        case 3:
            return rng.choice([True, False])
        case 4:
            return None
        case 5:
            return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            return {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def probing(rng: random.Random) -> dict[str, Any]:
    """An input of the probe policy: parts that are often equal, contained or close to one another."""
    a, s, t = value(rng), text(rng), text(rng)
    items = [value(rng) for _ in range(rng.randrange(4))] + rng.choice([[], [a], [s, t]])
    rng.shuffle(items)
    members = {text(rng): value(rng) for _ in range(rng.randrange(4))} | rng.choice([{}, {s: a}, {"": a}])
    n = rng.choice(NUMBERS)
    return {
        "action": {"type": "execution.start"},
        "a": a,
        "b": rng.choice([a, value(rng)]),
        "list": items,
        "object": members,
        "n": n,
        "m": rng.choice([n, rng.choice(NUMBERS)]),
        "s": s,
        "t": rng.choice([s, s[:1], s[-1:], t]),
        "joined": f"{s}/{t}",
    }


SAMPLES = [json.loads(sample.question.document) for sample in samples()]


def mutated(rng: random.Random) -> dict[str, Any]:
    """An ordinary question with some of its parts changed or gone."""
    document: dict[str, Any] = json.loads(json.dumps(rng.choice(SAMPLES)))
    for _ in range(rng.randrange(4)):
        place = rng.choice([document[name] for name in ("action", "action", "caller", "profile", "sandbox")])
        name = rng.choice(sorted(place))
        match rng.randrange(4):
            case 0:
                place[name] = value(rng)
            case 1:
                place[name] = [text(rng) for _ in range(rng.randrange(4))]
            case 2:
                place[name] = rng.choice(TEXTS)
            case _ if name != "type":
                del place[name]
    return document


def seen(decision: Decision) -> object:
    """All of it but the revision; of a refusal the code alone, since each engine says why in its own words."""
    codes = [reason.code for reason in decision.reasons]
    if codes and codes[0].startswith("policy_"):
        return decision.verdict, codes
    return (
        decision.verdict,
        decision.reasons,
        decision.message_for_agent,
        decision.obligations,
        decision.ttl_seconds,
    )


@asynccontextmanager
async def both(directory: Path) -> AsyncIterator[tuple[PolicyEngine, PolicyEngine]]:
    embedded = await rego.create(Policy(paths=(str(directory),), deadline_seconds=AMPLE))
    try:
        with opa_on_socket([directory]) as server:
            remote = opa.OpaEngine(Opa(url=server.url), AMPLE)
            yield embedded, remote
            await remote.close()
    finally:
        await embedded.close()


Generate = Callable[[random.Random], dict[str, Any]]


def documents(generate: Generate, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(QUESTIONS):
        yield json.dumps(generate(rng), ensure_ascii=False, allow_nan=False).encode()


async def answers(directory: Path, asked: list[bytes]) -> list[tuple[bytes, object, object]]:
    """Each question with what the embedded engine and the server say to it."""
    found: list[tuple[bytes, object, object]] = []
    async with both(directory) as (embedded, remote):
        for first in range(0, len(asked), 100):
            questions = [PolicyInput(document) for document in asked[first : first + 100]]
            here = await asyncio.gather(*map(embedded.decide, questions))
            there = await asyncio.gather(*map(remote.decide, questions))
            found += zip(asked[first : first + 100], map(seen, here), map(seen, there), strict=True)
    return found


def differences(found: list[tuple[bytes, object, object]]) -> list[str]:
    return [f"{document.decode()}\n  rego {here}\n  opa  {there}" for document, here, there in found if here != there]


async def test_every_comparison_and_echo_is_the_same_in_both() -> None:
    found = await answers(HERE / "probe", list(documents(probing, seed=1)))
    assert len(found) == QUESTIONS
    assert differences(found)[:3] == []
    # That the questions are worth asking: each comparison holds for some of them and not for others.
    names = set(re.findall(r'held contains "(\w+)"', (HERE / "probe" / "probe.rego").read_text()))
    times = Counter(name for _, here, _ in found for name in held(here))
    assert {name for name in names if not 0 < times[name] < QUESTIONS} == {"absent"}


def held(answer: Any) -> list[str]:
    assert answer[0] is Verdict.WARN, answer
    return [name for name in answer[2].split(",") if name]


async def test_the_shipped_policy_decides_the_same_in_both() -> None:
    found = await answers(POLICIES, list(documents(mutated, seed=2)))
    assert len(found) == QUESTIONS
    assert differences(found)[:3] == []
    assert {answer[0] for _, answer, _ in found if isinstance(answer, tuple)} >= {Verdict.ALLOW, Verdict.DENY}


async def test_a_difference_would_be_seen(tmp_path: Path) -> None:
    """Control: on what the guards refuse at load the two do differ, and this suite says so."""
    rules = 'package sandboxd\nimport rego.v1\ndefault decision := false\ndecision if input.s == "{}"\n'
    here, there = tmp_path / "here", tmp_path / "there"
    for directory, text in ((here, "a"), (there, "b")):
        directory.mkdir()
        (directory / "p.rego").write_text(rules.replace("{}", text))
    question = PolicyInput(b'{"s": "a"}')
    async with both(here) as (embedded, _), both(there) as (_, remote):
        assert seen(await embedded.decide(question)) != seen(await remote.decide(question))
