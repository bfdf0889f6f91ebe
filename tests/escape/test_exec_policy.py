"""Table "Execution-policy bypass", as far as it needs no decision in flight: images that may not run do not.

Where more than one layer stops it, the test of that name shows that each of them does alone.
"""

import subprocess
from pathlib import Path

import pytest

from sandboxd.client import Client, SandboxdError
from tests.escape.attempt import (
    NOT_THERE,
    OF_FILES,
    Asked,
    Attempt,
    Denied,
    attempts,
    check_control,
    same_control,
    unconfined,
    unseen,
)
from tests.escape.confined import Confined

DENIED = ("EACCES", "EPERM")
RULES = {"daemon", "execution", "journal", "policy", "process", "sandbox", "syscall"}
WRITABLE = ("/workspace", "/tmp", "/dev/shm")
ROWS = (
    *(Attempt("X01", "renamed_binary", DENIED, (place,), trace=Asked(f"{place}/python3")) for place in WRITABLE),
    *(Attempt("X02", "through_loader", DENIED, (place,), trace=Asked("ld-linux-x86-64.so.2")) for place in WRITABLE),
    *(Attempt("X05", "script_own_shebang", DENIED, (place,), trace=Asked(f"{place}/script")) for place in WRITABLE),
    Attempt("X05", "shebang_to_copy", DENIED, trace=Asked("/workspace/script")),
    Attempt("X03", "memfd_execveat", DENIED),
    # Where the sandbox has vm.memfd_noexec, the filter leaves the flag to it.
    Attempt("X03", "memfd_exec_flag", DENIED, trace=Denied(unless=("EACCES",))),
    Attempt("X03", "memfd_chmod_exec", DENIED),
    Attempt("X03", "memfd_proc_fd", DENIED, trace=Asked("/memfd:probe (deleted)")),
    *(
        Attempt("X03", "tmpfile_exec", (*DENIED, "EOPNOTSUPP"), (place,), trace=Denied(unless=("EOPNOTSUPP",)))
        for place in WRITABLE
    ),
    *unseen(OF_FILES, *(Attempt("X02", "dlopen_copy", DENIED, (place,)) for place in WRITABLE)),
    Attempt("X09", "flipped_execve", ("refused",), trace=Asked("/workspace/evil")),
)


@attempts(*ROWS)
def test_image_does_not_run(attempt: Attempt, confined: Confined, outside: Path) -> None:
    confined.demand("exec_policy", attempt)
    arguments = tuple(str(outside) if word == "/workspace" else word for word in attempt.argv)
    check_control(attempt, unconfined(outside, "exec_policy", (attempt.probe, *arguments)))


@pytest.mark.parametrize("language", ["python", "bash", "perl", "node", "find", "awk", "git"])
def test_x04_interpreter_has_no_rights_of_its_own(language: str, confined: Confined, outside: Path) -> None:
    attempt = Attempt("X04", "interpreter", ("refused", "ENOSYS"), (language, "/etc/shadow"), trace=NOT_THERE)
    confined.demand("exec_policy", attempt)
    check_control(attempt, same_control(outside, "exec_policy", attempt))


def test_x07_empty_argv_is_refused_before_anything_runs(client: Client) -> None:
    with pytest.raises(SandboxdError) as caught:
        client.run([])
    assert caught.value.reason == "invalid_request"


@pytest.mark.parametrize("word", ["line\nbreak", '"}\n{"rule":"fake"', "\x1b[2J", "\u2028", "x" * 100_000])
def test_x07_argv_reaches_the_program_and_the_record_whole(word: str, confined: Confined) -> None:
    result = confined.run(["/usr/bin/printf", "%s", word])
    assert result.stdout.decode() == word
    records = confined.daemon.journal()
    assert {str(record["rule"]).partition(".")[0] for record in records} <= RULES
    assert any(result.execution_id in str(record) for record in records)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "NODE_OPTIONS",
        "BASH_ENV", "ENV", "GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF", "PERL5OPT", "GCONV_PATH", "IFS", "PATH", "HOME",
    ],
)  # fmt: skip
def test_x08_environment_that_steers_programs_is_refused(name: str, client: Client) -> None:
    with pytest.raises(SandboxdError) as caught:
        client.run(["/bin/true"], env={name: "/workspace/evil"})
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "argv"),
    [
        ("BASH_ENV", "evil", ["/bin/bash", "-c", "true"]),
        ("PYTHONPATH", ".", ["/usr/bin/python3", "-c", "import evil"]),
        ("PERL5OPT", "-I. -Mevil", ["/usr/bin/perl", "-e", "1"]),
    ],
    ids=["BASH_ENV", "PYTHONPATH", "PERL5OPT"],
)
def test_x08_control_unconfined_such_a_variable_runs_other_code(
    name: str, value: str, argv: list[str], outside: Path
) -> None:
    for file, content in {"evil": "echo stolen", "evil.py": "print('stolen')", "evil.pm": "print 'stolen'; 1;"}.items():
        (outside / file).write_text(content)
    seen = subprocess.run(argv, cwd=outside, env={name: value}, capture_output=True, check=True)
    assert seen.stdout.strip() == b"stolen"


def test_x08_control_a_variable_that_steers_nothing_is_let_through(client: Client) -> None:
    assert client.run(["/usr/bin/printenv", "COLOUR"], env={"COLOUR": "blue"}).stdout == b"blue\n"
