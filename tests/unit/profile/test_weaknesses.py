from pathlib import Path

import pytest

from tests.unit.profile.profiles import profile, small


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("executable: false", "executable: true", "programs written to the workspace can be executed"),
        ("network: none", "network: loopback", "loopback"),
        ("[execve,", "[execve, flock,", "file locks"),
        ("[execve,", "[execve, fcntl,", "file locks"),
        ("[execve,", "[execve, execveat,", "execveat"),
        ("proc: subset", "proc: full", "figures of the host"),
        ("{scopes: true}", "{scopes: false}", "without Landlock"),
        ("isolation: process", "isolation: process\n  packages: [{path: /opt/x, why: a test of it}]", "/opt/x"),
        ("    binds:", "    binds:\n      - {source: /opt/y, why: a test of it}", "/opt/y can be read"),
        (
            "isolation: process",
            "isolation: process\n  env: {fixed: {LANG: C}, allow: [LANG]}",
            "replace the variable LANG",
        ),
    ],
)
def test_each_weakness_has_its_sentence(tmp_path: Path, old: str, new: str, words: str) -> None:
    before = small(tmp_path).warnings
    after = small(tmp_path, old, new).warnings
    assert any(words in sentence for sentence in set(after) - set(before))


def test_strict_has_no_weakness_to_tell() -> None:
    assert profile("strict").warnings == ()


def test_build_tells_that_its_workspace_may_execute() -> None:
    assert "programs written to the workspace can be executed" in profile("build").warnings
