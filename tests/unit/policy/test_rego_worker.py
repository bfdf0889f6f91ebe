"""What is evaluated inside the worker, and what can be done there; the rest of its confinement is in `test_rego`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regopy import Interpreter

from sandboxd.host.confined import ANSWER, FAILED, UNDEFINED
from sandboxd.policy.rego_process import Answer, Status, Worker, WorkerGone
from sandboxd.policy.rego_worker import _Engine, _Input, _load

ESCAPES = st.text(st.sampled_from('ab"\\\n\t\0\x1b\x7f/{}%`\u2028é😀'), max_size=8)
VALUES = st.recursive(
    ESCAPES | st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**9), 10**9).map(lambda number: number / 64)
    | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ESCAPES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
SEEN = """package p
import rego.v1
value := [
	input.x,
	[type_name(x) | some x in input.l],
	[x | some x in input.l; is_string(x); contains(x, "\\"")],
	[x | some x in input.l; x == "a\\nb"],
	[x | some x in input.l; x > 5],
]
"""

# A worker whose engine attempts what it is asked to. The first one is that of the rehearsal: it has the controls.
TAKEN_OVER = """
import json, os, socket, sys
from sandboxd.policy import rego_worker

def runs_in_a_child():
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/true", ["true"])
    return os.waitpid(pid, 0)[1]

def forks():
    if os.fork() == 0:
        os._exit(0)
    os.wait()

ATTEMPTS = {
    "open": (lambda: open("/etc/passwd").close(),) * 2,
    "create": (lambda: os.close(os.open("/tmp", os.O_TMPFILE | os.O_RDWR)),) * 2,
    "inet socket": (lambda: socket.socket().close(),) * 2,
    "unix socket": (lambda: socket.socket(socket.AF_UNIX).close(),) * 2,
    "fork": (forks,) * 2,
    "execve": (runs_in_a_child, lambda: os.execv("/bin/true", ["true"])),
    "signal": (lambda: os.kill(os.getppid(), 0),) * 2,
}
controls = {}

def ended(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "worked"

class Engine(rego_worker._Engine):
    def __init__(self, *parts):
        super().__init__(*parts)
        if not controls:
            controls.update((name, ended(control)) for name, (control, _) in ATTEMPTS.items())

    def ask(self, document):
        name = json.loads(document)
        if not isinstance(name, str):
            return super().ask(document)
        return rego_worker.ANSWER, f"{controls[name]}, {ended(ATTEMPTS[name][1])}"

rego_worker._Engine = Engine
rego_worker.main(int(sys.argv[1]), int(sys.argv[2]))
"""
# One on a node where no filter can be installed.
UNABLE = """
import sys
import pyseccomp
from sandboxd.policy import rego_worker

def refused(self):
    raise OSError(22, "Invalid argument")

pyseccomp.SyscallFilter.load = refused
rego_worker.main(int(sys.argv[1]), int(sys.argv[2]))
"""
SIMPLEST = b'{"modules": [["p.rego", "package p\\na := input"]], "data": "{}", "entrypoint": "p/a"}'


@pytest.fixture
def taken_over(tmp_path: Path) -> Iterator[Worker]:
    script = tmp_path / "worker.py"
    script.write_text(TAKEN_OVER)
    worker = Worker.start(script)
    yield worker
    worker.kill()


@pytest.mark.parametrize("name", ["open", "create", "inet socket", "unix socket", "fork", "execve", "signal"])
def test_who_takes_the_worker_over_can_call_nothing_but_what_a_computation_needs(taken_over: Worker, name: str) -> None:
    """What worked before a bundle was there does not any more."""
    assert taken_over.load(SIMPLEST) == Answer(Status.ANSWER, "")
    assert taken_over.try_out(json.dumps(name).encode()).text == "worked, PermissionError"


def test_bundle_is_compiled_only_after_the_system_calls_are_given_up() -> None:
    worker = Worker.start()
    try:
        assert worker.try_out(b"{}") == Answer(Status.FAILED, "no policy is loaded")
        assert _seccomp(worker) == "0"
        assert worker.load(SIMPLEST.replace(b"package p", b"package")).status is Status.FAILED
        assert _seccomp(worker) == "2"
    finally:
        worker.kill()


def _seccomp(worker: Worker) -> str:
    lines = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii").splitlines()
    return dict(line.split(":\t", 1) for line in lines)["Seccomp"]


def test_worker_that_cannot_give_them_up_ends_without_having_seen_a_bundle(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(UNABLE)
    worker = Worker.start(script)
    with pytest.raises(WorkerGone, match="ended with status 1"):
        worker.load(SIMPLEST)
    worker.kill()


def load(text: str) -> _Engine:
    body = {
        "modules": [["p.rego", f"package sandboxd\nimport rego.v1\n{text}"]],
        "data": "{}",
        "entrypoint": "sandboxd/decision",
    }
    engine, status, message = _load(json.dumps(body).encode())
    assert engine is not None, message
    assert status == ANSWER
    return engine


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, max_size=4), VALUES)
def test_an_input_built_by_value_is_the_same_as_its_text(items: list[Any], value: Any) -> None:
    document = {"l": items, "x": value}
    interpreter = Interpreter()
    interpreter.add_module("p.rego", SEEN)
    bundle = interpreter.build(None, ["p/value"])
    interpreter.set_input_term(json.dumps(document, ensure_ascii=False))
    as_text = str(interpreter.query_bundle_entrypoint(bundle, "p/value"))
    if not _Input(interpreter).set(document):
        return  # then it goes as text anyway
    assert str(interpreter.query_bundle_entrypoint(bundle, "p/value")) == as_text


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, {"a": [2**64]}, 1e-7, 0.0078125])
def test_numbers_that_the_fast_way_would_change_go_as_text(value: object) -> None:
    assert not _Input(Interpreter()).set(value)
    engine = load("decision := input")
    assert json.loads(engine.ask(json.dumps(value).encode())[1])["expressions"] == [value]


def test_this_version_of_the_library_takes_the_fast_way() -> None:
    assert load("decision := true")._input is not None


def test_answers_are_told_apart() -> None:
    engine = load("decision := true if input.x == 1\ndecision := to_number(input.s) if input.x == 2")
    assert engine.ask(b'{"x": 1}') == (ANSWER, '{"expressions":[true]}')
    assert engine.ask(b'{"x": 3}') == (UNDEFINED, "")
    assert engine.ask(b'{"x": 2, "s": "no"}')[0] == FAILED
    assert engine.ask(b'{"x": 1}')[0] == ANSWER


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_document_that_is_not_json_fails_and_does_no_harm(document: bytes) -> None:
    engine = load("decision := true")
    assert engine.ask(document)[0] == FAILED
    assert engine.ask(b"{}")[0] == ANSWER


def test_a_policy_that_does_not_parse_says_where() -> None:
    body = {"modules": [["p.rego", "package p\na := {"]], "data": "{}", "entrypoint": "p/a"}
    engine, status, message = _load(json.dumps(body).encode())
    assert (engine, status) == (None, FAILED)
    assert "p.rego|" in message
