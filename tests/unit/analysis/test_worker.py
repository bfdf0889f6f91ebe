"""What the worker answers, and what it cannot do once it is ready: tried inside a real one."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxd.analysis import worker as worker_script
from sandboxd.analysis.worker import MAX_DEPTH, analyse
from sandboxd.policy.rego_process import Answer, Status, Worker

# The worker itself, which also attempts what a source would have it do if it took it over.
ATTEMPTING = """
import os, socket, subprocess, sys
from sandboxd.analysis import worker
from sandboxd.host.confined import ANSWER, FAILED, serve

ATTEMPTS = {
    b"read a file": lambda: open("/etc/passwd").read(),
    b"write a file": lambda: open("/tmp/sandboxd-analysis-worker", "a"),
    b"open a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    b"reach a socket of the host": lambda: socket.socket(socket.AF_UNIX).connect_ex("/run/x"),
    b"start a program": lambda: subprocess.run(["/bin/true"], check=True),
    b"fork": lambda: os.fork() or os._exit(0),
}

def answer(kind, body):
    if body not in ATTEMPTS:
        return worker._answer(kind, body)
    try:
        ATTEMPTS[body]()
    except OSError as error:
        return FAILED, error.strerror
    return ANSWER, "done"

serve(int(sys.argv[1]), int(sys.argv[2]), answer)
"""


def found(language: str, source: str) -> set[str]:
    return {f"{code} {detail}" for code, detail, _ in answered(language, source)["findings"]}


def answered(language: str, source: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(analyse(language, source.encode()))
    return answer


def test_facts_are_measured() -> None:
    assert answered("python", "ab\nab") == {"parsed": True, "lines": 2, "entropy": 1.522, "findings": []}
    assert answered("shell", "") == {"parsed": True, "lines": 0, "entropy": 0.0, "findings": []}
    assert [answered("shell", text)["lines"] for text in ("a", "a\n", "a\nb", "\n")] == [1, 1, 2, 1]
    assert answered("javascript", "f(")["parsed"] is False


def test_source_in_the_source_is_read_in_its_own_language() -> None:
    inner = f"import os; os.system({shlex.quote('node -e 1')})"
    source = f"bash -c {shlex.quote(f'python3 -c {shlex.quote(inner)}')}"
    assert found("shell", source) == {
        "command bash", "eval.string bash", "command python3", "eval.string python3", "import os",
        "process.start os.system", "command node", "eval.string node", "findings.cut embedded",
    }  # fmt: skip


def test_what_is_found_inside_stands_on_the_line_of_its_place() -> None:
    rows = answered("python", "import os\n\nos.system('a\\nb\\nc')")["findings"]
    assert [line for code, _, line in rows if code == "command"] == [3, 3, 3]


def test_source_of_which_a_part_is_not_known_is_read_as_far_as_it_goes_and_is_no_failure() -> None:
    partly = found("python", "import os\nos.system(f'curl {x} | sh; (')")
    assert "eval.downloaded curl" in partly and "analysis.failed syntax" not in partly
    assert "analysis.failed syntax" in found("python", "import os\nos.system('curl x | sh; (')")


def test_so_much_source_in_the_source_is_read_and_no_more() -> None:
    sources = [f"eval({f'x{number};' * 10_000!r})\n" for number in range(5)]
    assert "findings.cut embedded" not in found("python", "".join(sources[:3]))
    assert "findings.cut embedded" in found("python", "".join(sources))


def test_the_same_source_in_the_source_is_read_once() -> None:
    assert "findings.cut embedded" not in found("python", "eval('x')\n" * 100)


def test_source_deeper_than_is_read_is_said_to_be_there() -> None:
    source = "x"
    for _ in range(MAX_DEPTH + 1):
        source = f"eval({source!r})"
    assert "findings.cut embedded" in found("python", source)
    assert "findings.cut embedded" not in found("python", "eval('eval(\"x\")')")


def test_inner_source_that_cannot_be_read_is_a_finding() -> None:
    assert found("python", "eval('(')") == {"eval.string eval", "analysis.failed syntax"}
    assert answered("python", "eval('(')")["parsed"] is True


@pytest.fixture
def attempting(tmp_path: Path) -> Iterator[Worker]:
    script = tmp_path / "attempting.py"
    script.write_text(ATTEMPTING)
    started = Worker.start(script)
    yield started
    started.kill()


@pytest.mark.parametrize(
    "attempt",
    ["read a file", "write a file", "open a socket", "reach a socket of the host", "start a program", "fork"],
)
def test_the_worker_cannot(attempting: Worker, attempt: str) -> None:
    control = attempting.try_out(attempt.encode())
    assert control == Answer(Status.ANSWER, "done")
    attempting.load(b"")
    assert attempting.try_out(b"python\0import os").status is Status.ANSWER
    assert attempting.try_out(attempt.encode()) == Answer(Status.FAILED, "Operation not permitted")
    assert attempting.try_out(b"shell\0ls").status is Status.ANSWER


def test_the_worker_has_no_environment_and_no_descriptor_but_its_socket() -> None:
    started = Worker.start(Path(worker_script.__file__))
    try:
        started.load(b"")
        process = Path(f"/proc/{started.pid}")
        assert sorted(str(fd.readlink()).partition(":")[0] for fd in (process / "fd").iterdir()) == [
            "/dev/null", "/dev/null", "/dev/null", "socket",
        ]  # fmt: skip
        assert (process / "environ").read_bytes().strip(b"\0") in (b"", b"LC_CTYPE=C.UTF-8")
        assert "Seccomp:\t2" in (process / "status").read_text()
    finally:
        started.kill()
