from pathlib import Path

import pytest

from sandboxd.errors import ProfileInvalid
from sandboxd.profile.load import load_profiles
from sandboxd.profile.resolve import ResolvedProfile
from tests.unit.profile.profiles import COMPLETE, child


def inherited(tmp_path: Path, spec: str, old: str = "", new: str = "") -> ResolvedProfile:
    (tmp_path / "small.yaml").write_text(COMPLETE.replace(old, new) if old else COMPLETE)
    (tmp_path / "child.yaml").write_text(child(spec))
    return load_profiles([tmp_path]).get("child")


def calls(profile: ResolvedProfile) -> list[str]:
    return sorted(name for group in profile.spec.seccomp.allow for name in group.names)


def test_scalars_are_replaced_and_the_rest_is_kept(tmp_path: Path) -> None:
    found = inherited(tmp_path, "  network: loopback\n  limits: {pids: 4}\n")
    assert (found.network, found.limits.pids, found.limits.open_files) == ("loopback", 4, 64)
    assert found.description == "a child of the tests"


def test_lists_add_and_an_entry_of_the_same_key_replaces(tmp_path: Path) -> None:
    found = inherited(
        tmp_path,
        "  root: {binds: [{source: /usr, why: no longer executable},"
        " {source: /opt, optional: true, why: a test of it}]}\n"
        "  seccomp: {allow: [{names: [lseek], why: a test of it},"
        " {names: [read], why: a test of it, args: [{index: 0, one_of: [0]}]}]}\n",
    )
    assert [(bind.source, bind.executable) for bind in found.spec.root.binds] == [("/usr", False), ("/opt", False)]
    assert calls(found) == ["execve", "exit_group", "lseek", "read", "write"]
    assert next(group.args for group in found.spec.seccomp.allow if "read" in group.names) != ()


def test_without_takes_away(tmp_path: Path) -> None:
    found = inherited(
        tmp_path,
        "  without: {syscalls: [read], env: [A, X*], interpreters: [sh]}\n",
        "  cwd: /workspace",
        "  cwd: /workspace\n  env: {fixed: {A: a, B: b}, allow: ['X*', 'Y*']}\n"
        "  interpreters: [{language: sh, argv: [/bin/sh, '{file}'], file_name: m}]",
    )
    assert calls(found) == ["execve", "exit_group", "write"]
    assert (found.env, found.env_allowed, found.interpreters) == ((("B", "b"),), ("Y*",), ())


@pytest.mark.parametrize(
    "without",
    ["syscalls: [lseek]", "binds: [/opt]", "env: [X]", "packages: [/opt/x]", "files: [/etc/x]", "landlock: [/x]"],
)
def test_without_what_the_parent_lacks_is_an_error(tmp_path: Path, without: str) -> None:
    with pytest.raises(ProfileInvalid, match=r"child\.yaml:.*is not in the parent"):
        inherited(tmp_path, f"  without: {{{without}}}\n")


def test_a_default_of_the_child_speaks_for_all_that_it_does_not_name(tmp_path: Path) -> None:
    parent = "{default: best_effort, guarantees: {limit.swap: require, limit.pids: best_effort}}"
    levels = inherited(tmp_path, "  enforcement: {default: require}\n", "{default: best_effort}", parent).enforcement
    assert {level for _, level in levels} == {"require"}
    kept = inherited(tmp_path, "", "{default: best_effort}", parent)
    assert [level for guarantee, level in kept.enforcement if guarantee == "limit.swap"] == ["require"]


def test_a_deny_of_the_child_overrides_an_allow_of_the_parent(tmp_path: Path) -> None:
    found = inherited(tmp_path, "  seccomp: {deny: [{names: [read], errno: EACCES, why: a test of it}]}\n")
    assert "read" not in calls(found)
