"""The fuzzers' harness finds a bug that is there, by coverage, and calls nothing a bug that is none. In seconds."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from bench.soak import covered, protobuf
from bench.soak import target as targets
from bench.soak.crashes import Run
from bench.soak.plain import fuzz
from bench.soak.planted import Planted, planted, texts
from bench.soak.target import Broken, Shape, Target

MOST = 200_000


def _run(target: Target, executions: int) -> Run:
    run = Run(target)
    fuzz(run, list(target.seeds), lambda: bool(run.crashes) or run.executions >= executions, random.Random(7))
    return run


def _raising(error: Exception) -> Target:
    def run(data: bytes) -> None:
        raise error

    return replace(targets.load("counters"), run=run, allowed=(ValueError,), seeds=(b"x",))


def _inside_json(data: bytes) -> object:
    match json.loads(data):
        case {"a": [1, {"b": str(text)}]}:
            return text
    return None


def _inside_protobuf(data: bytes) -> object:
    for outer in protobuf.fields(data) or ():
        for inner in protobuf.fields(outer.payload) or ():
            if (outer.number, inner.number, inner.wire_type) == (3, 2, 2):
                return inner.payload.decode()
    return None


MESSAGE = protobuf.Field(3, 2, protobuf.Field(2, 2, b"some text").encoded()).encoded()
DOCUMENT = b'{"a": [1, {"b": "some text"}]}'
PLANTED_IN = {
    "bytes": targets.load("counters"),
    "json": Target(
        "json", (__name__,), _inside_json, (ValueError, RecursionError), (b'{"a": [1, {"b": "some text"}]}',)
    ),
    "protobuf": Target("protobuf", (__name__,), _inside_protobuf, (ValueError,), (MESSAGE,), shape=Shape.PROTOBUF),
}


@pytest.mark.parametrize("target", PLANTED_IN.values(), ids=PLANTED_IN)
def test_bug_planted_behind_a_parser_is_found(target: Target) -> None:
    crashes = list(_run(planted(target), MOST).crashes.values())
    assert [crash.kind for crash in crashes] == ["Planted"]
    assert crashes[0].where.startswith("bench/soak/planted.py:")
    with pytest.raises(Planted):
        planted(target).run(bytes.fromhex(crashes[0].data))


@pytest.mark.parametrize("name", targets.NAMES)
def test_seeds_and_a_hundred_mutations_of_them_are_no_crash(name: str) -> None:
    run = _run(targets.load(name), 100)
    assert run.executions == 100
    assert not run.crashes


@pytest.mark.parametrize("name", targets.NAMES)
def test_a_seed_comes_through_to_where_a_bug_is_planted(name: str) -> None:
    target = targets.load(name)
    came: list[str] = []
    for seed in target.seeds:
        with Run(target).one(seed):
            came += texts(target.run(seed))
    assert any(came)


@pytest.mark.parametrize("name", targets.NAMES)
def test_functions_left_out_of_coverage_are_there_and_no_seed_reaches_them(name: str, tmp_path: Path) -> None:
    target = targets.load(name)
    for number, seed in enumerate(target.seeds):
        (tmp_path / str(number)).write_bytes(seed)
    assert covered.percent(covered.functions(target, tmp_path)) > 0


def test_coverage_is_of_the_functions_that_inputs_run(tmp_path: Path) -> None:
    target = targets.load("probed")
    (tmp_path / "input").write_bytes(target.seeds[0])
    assert [(function.name, function.reached) for function in covered.functions(target, tmp_path)] == [
        ("probed.decode", 6)
    ]


def test_coverage_of_no_input_is_nothing(tmp_path: Path) -> None:
    assert covered.percent(covered.functions(targets.load("counters"), tmp_path)) == 0


@pytest.mark.parametrize("name", ["probed.decode", "probed.renamed"])
def test_function_left_out_that_is_reached_or_not_there_is_an_error(name: str, tmp_path: Path) -> None:
    target = replace(targets.load("probed"), outside=("probed.probe", name))
    (tmp_path / "input").write_bytes(target.seeds[0])
    with pytest.raises(ValueError, match=name):
        covered.functions(target, tmp_path)


def test_change_to_a_message_leaves_a_message() -> None:
    chance = random.Random(7)
    data = MESSAGE
    for _ in range(1000):
        data = protobuf.changed(data or MESSAGE, (b"word",), chance, lambda piece: piece[::-1])[:4096]
        assert protobuf.fields(data) is not None
        data = data if len(data) < 2000 else MESSAGE


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
    with pytest.raises(KeyError, match="request, calls"):
        targets.load("nope")
