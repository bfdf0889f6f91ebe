import pytest

from sandboxd.analysis.commandline import LANGUAGES, Code, code_in, commands, reads_its_program

FOUND = [
    (["python3", "-c", "x"], ("python", "x")),
    (["/usr/bin/python3.11", "-c", "x", "argument"], ("python", "x")),
    (["python3", "-cx"], ("python", "x")),
    (["python3", "-Ic", "x"], ("python", "x")),
    (["python3", "-I", "-W", "ignore", "-Xdev", "-X", "dev", "-c", "x"], ("python", "x")),
    (["python3", "--check-hash-based-pycs", "always", "-c", "x"], ("python", "x")),
    (["pypy3", "-c", "x"], ("python", "x")),
    (["bash", "-c", "x", "name"], ("shell", "x")),
    (["sh", "-c", "x"], ("shell", "x")),
    (["/bin/dash", "-c", "x"], ("shell", "x")),
    (["bash", "-lc", "x"], ("shell", "x")),
    (["bash", "-ec", "x"], ("shell", "x")),
    (["bash", "-c", "-e", "x"], ("shell", "x")),
    (["bash", "-c", "--", "x"], ("shell", "x")),
    (["bash", "-o", "pipefail", "-c", "x"], ("shell", "x")),
    (["bash", "-eo", "pipefail", "-c", "x"], ("shell", "x")),
    (["bash", "+x", "--norc", "--rcfile", "file", "-c", "x"], ("shell", "x")),
    (["node", "-e", "x"], ("javascript", "x")),
    (["nodejs", "--eval", "x"], ("javascript", "x")),
    (["node", "--eval=x"], ("javascript", "x")),
    (["node", "-p", "x"], ("javascript", "x")),
    (["node", "-pe", "x"], ("javascript", "x")),
    (["node", "--no-warnings", "-r", "module", "-e", "x"], ("javascript", "x")),
    (["/usr/bin/env", "python3", "-c", "x"], ("python", "x")),
    (["env", "-i", "-u", "A", "B=c", "timeout", "-k", "5", "10", "bash", "-c", "x"], ("shell", "x")),
    (["find", ".", "-exec", "ls", ";", "-exec", "node", "-e", "x", ";"], ("javascript", "x")),
]
NOT_FOUND = [
    [],
    ["python3"],
    ["python3", "file.py"],
    ["python3", "file.py", "-c", "x"],
    ["python3", "-m", "module", "-c", "x"],
    ["python3", "-mmodule", "-c", "x"],
    ["python3", "-c"],
    ["python3", "-", "-c", "x"],
    ["python3", "-Wc", "x"],
    ["bash", "file.sh", "-c", "x"],
    ["bash", "-e", "file.sh"],
    ["bash", "--rcfile", "-c", "x"],
    ["bash", "-c"],
    ["bash", "--"],
    ["node", "file.js", "-e", "x"],
    ["node", "-r", "-e", "x"],
    ["node", "-e"],
    ["/bin/true", "-c", "x"],
    ["", "-c", "x"],
    ["pythonic", "-c", "x"],
    ["env"],
    ["echo", "python3", "-c", "x"],
]


@pytest.mark.parametrize(("argv", "expected"), FOUND, ids=lambda value: " ".join(value))
def test_source_in_an_argument_is_found(argv: list[str], expected: tuple[str, str]) -> None:
    assert code_in(argv) == Code(*expected)


@pytest.mark.parametrize("argv", NOT_FOUND, ids=" ".join)
def test_what_is_no_source_is_not_taken_for_it(argv: list[str]) -> None:
    assert code_in(argv) is None


def test_shipped_languages_are_known() -> None:
    assert {"python", "bash", "sh", "node"} <= LANGUAGES.keys()


@pytest.mark.parametrize(
    "line",
    [
        "python3",
        "python3 -",
        "python3 -u",
        "bash -s a",
        "bash -e",
        "bash -o pipefail -s",
        "node",
        "perl",
        "sh /dev/stdin",
    ],
)
def test_interpreter_without_a_program_reads_it(line: str) -> None:
    assert reads_its_program(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "python3 a.py",
        "python3 -c x",
        "python3 -m x",
        "bash a.sh",
        "bash -e a.sh",
        "node -e x",
        "perl -e x",
        "perl a.pl",
    ],
)
def test_interpreter_with_a_program_reads_data(line: str) -> None:
    assert not reads_its_program(line.split())


def test_commands_that_commands_run_are_told_apart() -> None:
    words = ["sudo", "-u", "a", "find", "-exec", "env", "b=c", "d", ";", "-exec", "e", ";"]
    assert [words[start:end] for start, end in commands(words)] == [
        words,
        ["find", "-exec", "env", "b=c", "d", ";", "-exec", "e", ";"],
        ["env", "b=c", "d", ";"],
        ["d", ";"],
        ["e", ";"],
    ]
