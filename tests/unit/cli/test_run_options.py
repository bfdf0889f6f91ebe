import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.run_options import parse
from sandboxd.client import Code


@pytest.fixture
def stdin(tmp_path: Path) -> Iterator[bytes]:
    """Standard input with these bytes."""
    (tmp_path / "in").write_bytes(b"print(1)")
    before, source = os.dup(0), os.open(tmp_path / "in", os.O_RDONLY)
    os.dup2(source, 0)
    os.close(source)
    yield b"print(1)"
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.parametrize(
    ("arguments", "argv"),
    [
        (["--", "a", "-p", "x"], ["a", "-p", "x"]),
        (["a", "-p", "x", "--json"], ["a", "-p", "x", "--json"]),
        (["-p", "q", "a", "--", "b"], ["a", "--", "b"]),
        (["-p", "q", "--", "-a"], ["-a"]),
        (["--", "a", "--help"], ["a", "--help"]),
    ],
)
def test_what_follows_the_program_is_its_own(arguments: list[str], argv: list[str], stdin: bytes) -> None:
    assert parse(arguments).program == argv


def test_code_is_an_argument_or_stdin(stdin: bytes) -> None:
    given = parse(["--code", "python", "print(2)"])
    assert (given.program, given.options["stdin"]) == (Code("print(2)", "python"), stdin)


def test_dash_reads_the_source_and_leaves_no_input(stdin: bytes) -> None:
    given = parse(["--code", "node", "-"])
    assert (given.program, given.options.get("stdin", b"")) == (Code(stdin.decode(), "node"), b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no program"),
        (["--"], "no program"),
        (["--code", "python", "a", "b"], "takes one argument"),
        (["--collect", "*", "x"], "--output-dir"),
        (["--limit", "x", "y"], "KEY=VALUE"),
    ],
)
def test_mistake_says_what_to_write(arguments: list[str], message: str) -> None:
    with pytest.raises(Mistake, match=message):
        parse(arguments)


@pytest.mark.parametrize("arguments", [["--prof", "x", "y"], ["--profile"], ["--unknown", "--", "x"]])
def test_unknown_option_exits_125(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 125
    assert "sandboxctl run --help" in capsys.readouterr().err
