"""The fuzzers' harness finds a bug that is there, by coverage, and calls nothing a bug that is none. In seconds."""

import random
from dataclasses import replace

import pytest

from bench.soak import target as targets
from bench.soak.crashes import Run
from bench.soak.plain import fuzz
from bench.soak.planted import planted
from bench.soak.target import Broken, Target

MOST = 200_000


def _run(target: Target, executions: int) -> Run:
    run = Run(target)
    fuzz(run, list(target.seeds), lambda: bool(run.crashes) or run.executions >= executions, random.Random(7))
    return run


def _raising(error: Exception) -> Target:
    def run(data: bytes) -> None:
        raise error

    return replace(targets.load("counters"), run=run, allowed=(ValueError,), seeds=(b"x",))


@pytest.mark.parametrize("name", ["counters", "decision"])
def test_planted_bug_is_found(name: str) -> None:
    crashes = list(_run(planted(targets.load(name)), MOST).crashes.values())
    assert [(crash.kind, crash.message) for crash in crashes] == [("KeyError", "'planted'")]
    assert crashes[0].where.startswith("bench/soak/planted.py:")
    assert bytes.fromhex(crashes[0].data).startswith(b"bug")


@pytest.mark.parametrize("name", targets.NAMES)
def test_seeds_and_a_hundred_mutations_of_them_are_no_crash(name: str) -> None:
    run = _run(targets.load(name), 100)
    assert run.executions == 100
    assert not run.crashes


def test_exception_that_is_not_documented_is_a_crash() -> None:
    assert [crash.kind for crash in _run(_raising(KeyError("x")), 5).crashes.values()] == ["KeyError"]


def test_broken_promise_is_a_crash() -> None:
    assert [crash.kind for crash in _run(_raising(Broken("x")), 5).crashes.values()] == ["Broken"]


def test_documented_exception_is_none() -> None:
    assert not _run(_raising(ValueError("x")), 5).crashes


def test_interrupt_ends_the_run() -> None:
    run = Run(targets.load("counters"))
    with pytest.raises(KeyboardInterrupt), run.one(b""):
        raise KeyboardInterrupt


def test_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="request, wire"):
        targets.load("nope")
