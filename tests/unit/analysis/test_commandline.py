import pytest

from sandboxd.analysis.commandline import LANGUAGES, Code, code_in

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
]


@pytest.mark.parametrize(("argv", "expected"), FOUND, ids=lambda value: " ".join(value))
def test_source_in_an_argument_is_found(argv: list[str], expected: tuple[str, str]) -> None:
    assert code_in(argv) == Code(*expected)


@pytest.mark.parametrize("argv", NOT_FOUND, ids=" ".join)
def test_what_is_no_source_is_not_taken_for_it(argv: list[str]) -> None:
    assert code_in(argv) is None


def test_shipped_languages_are_known() -> None:
    assert {"python", "bash", "sh", "node"} <= LANGUAGES.keys()
