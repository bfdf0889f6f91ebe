import pytest

from sandboxd.errors import InvalidRequest
from sandboxd.model import ArgvProgram, CodeProgram, ExecuteRequest, InputFile, Program
from sandboxd.profile import program
from tests.unit.profile.profiles import profile


def made(what: Program, *files: InputFile) -> tuple[tuple[str, ...], tuple[InputFile, ...]]:
    return program.argv_and_files(profile(), ExecuteRequest(what, files=files))


def test_code_becomes_a_file_and_the_interpreters_command_line() -> None:
    argv, files = made(CodeProgram("python", "print('é')"), InputFile("data.csv", b"1"))
    assert argv == ("/usr/bin/python3", "/workspace/main.py")
    assert files == (InputFile("data.csv", b"1"), InputFile("main.py", "print('é')".encode()))


def test_an_unknown_language_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="python, bash, sh, node") as caught:
        made(CodeProgram("cobol", ""))
    assert caught.value.reason == "language_unknown"


def test_an_input_file_cannot_take_the_place_of_the_code() -> None:
    with pytest.raises(InvalidRequest, match=r"'main\.py' would be overwritten"):
        made(CodeProgram("python", ""), InputFile("main.py", b""))


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("",),
        ("a\0b",),
        ("a", "\ud800"),
        ("a", "x" * 131072),
        ("a",) * 5000,
        ("a", *("x" * 100_000 for _ in range(11))),
    ],
)
def test_malformed_command_lines_are_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        made(ArgvProgram(argv))


def test_odd_but_lawful_arguments_pass_untouched() -> None:
    argv = ("/bin/echo", "", "a\nb", "x" * 100_000, "\x1b[31m")
    assert made(ArgvProgram(argv))[0] == argv


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "../x", "/abs", "a/../../x", "a//b", "a/", "./a", "a/.", "a\0b", "a\nb", "a\x1bb", "a\x7fb",
        "a\x9bb", "a\u2028b", "\udcff", "x" * 256, "/".join(["d" * 200] * 21), "/".join("d" * 1000),
    ],
)  # fmt: skip
def test_names_that_could_lead_out_or_mislead_are_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        made(ArgvProgram(("a",)), InputFile(path, b""))
    with pytest.raises(InvalidRequest):
        program.patterns([path])


@pytest.mark.parametrize("path", ["a", "a/b.txt", "-rf", "...", "ä ö/ü", "x" * 255, "*.py", "out/**"])
def test_ordinary_names_pass(path: str) -> None:
    assert program.relative_path("file", path) == path


def test_files_that_contradict_each_other_are_refused() -> None:
    one = InputFile("a", b"")
    for files in ((one, one), (one, InputFile("a/b", b"")), (InputFile("a", b"", 0o4755),)):
        with pytest.raises(InvalidRequest):
            made(ArgvProgram(("x",)), *files)
    with pytest.raises(InvalidRequest, match="more than"):
        made(ArgvProgram(("x",)), *(InputFile(f"f{n}", b"") for n in range(program.MAX_INPUT_FILES + 1)))


def test_files_that_the_workspace_cannot_hold_are_refused() -> None:
    big = InputFile("a", bytes(33 << 20))
    small = profile("strict")
    with pytest.raises(InvalidRequest, match="the workspace holds"):
        program.argv_and_files(small, ExecuteRequest(ArgvProgram(("x",)), files=(big, InputFile("b", big.content))))


def test_the_working_directory_is_the_workspace_or_below_or_absolute() -> None:
    assert program.working_directory(profile(), "") == "/workspace"
    assert program.working_directory(profile(), "src/x") == "/workspace/src/x"
    assert program.working_directory(profile(), "/usr//lib/") == "/usr/lib"
    assert program.working_directory(profile(), "/") == "/"
    for bad in ("..", "/usr/../etc", "a\0", "/a\nb"):
        with pytest.raises(InvalidRequest):
            program.working_directory(profile(), bad)


def test_equal_patterns_are_taken_once_and_too_many_refused() -> None:
    assert program.patterns(["a", "b", "a"]) == ("a", "b")
    with pytest.raises(InvalidRequest):
        program.patterns(str(n) for n in range(300))
