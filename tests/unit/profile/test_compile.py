from pathlib import Path

import pytest

from sandboxd.profile import compile as compiler
from sandboxd.profile.seccomp import Memfd
from sandboxd.spawner import template
from tests.unit.profile.profiles import COMPLETE, SHIPPED, profile, shipped, small


def test_the_command_prints_a_template_for_each_profile_under_its_own_digest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compiler.main([str(SHIPPED)]) == 0
    first = {each.name: each for each in template.load(capsys.readouterr().out)}
    assert {name: each.digest for name, each in first.items()} == {each.name: each.digest for each in shipped()}
    assert compiler.main(["--memfd", "deny", str(SHIPPED)]) == 0
    denying = {each.name: each for each in template.load(capsys.readouterr().out)}
    assert denying["default"].digest == first["default"].digest
    assert denying["default"].seccomp != first["default"].seccomp


def test_a_bad_profile_is_told_on_stderr_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(COMPLETE.replace("source: /usr", "source: /"))
    assert compiler.main([str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "p.yaml:10: '/' cannot be shown" in captured.err


def test_protected_directories_reach_the_checks(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(COMPLETE)
    assert compiler.main(["--protect", "/usr/state", str(tmp_path)]) == 1


def test_ceilings_are_the_limits_of_the_profile() -> None:
    made = compiler.compiled(profile(), Memfd.SYSCTL)
    assert (made.ceilings.memory_bytes, made.ceilings.pids, made.ceilings.cpus) == (512 << 20, 128, 1.0)
    assert (made.proc, made.network, made.workspace_executable, made.landlock_scopes) == ("full", "none", False, True)


def test_only_the_writable_mounts_are_writable_and_none_of_them_executes() -> None:
    rules = dict(compiler.compiled(profile(), Memfd.SYSCTL).landlock)
    assert {path for path, access in rules.items() if access == "write"} == {"/tmp", "/dev/shm", "/workspace"}
    assert rules["/usr"] == "exec"
    assert rules["/"] == "list"
    assert "write_exec" not in rules.values()


def test_an_executable_workspace_may_execute() -> None:
    made = compiler.compiled(profile("build"), Memfd.SYSCTL)
    assert dict(made.landlock)["/workspace"] == "write_exec"
    assert made.workspace_executable


def test_nothing_of_the_hosts_users_is_in_the_view() -> None:
    view = compiler.compiled(profile(), Memfd.SYSCTL).view
    sources = {bind.source for bind in view.binds}
    assert not sources & {"/etc/passwd", "/etc/group", "/etc/shadow", "/etc", "/etc/hosts", "/etc/resolv.conf"}
    assert "sandbox:x:1000:1000" in dict(view.files)["/etc/passwd"]


def test_packages_are_bound_executable_unless_a_bind_shows_them_already(tmp_path: Path) -> None:
    packages = (
        "  packages: [{path: /opt/tool, optional: true, why: a test of it}, {path: /usr/lib/x, why: a test of it}]"
    )
    made = compiler.compiled(small(tmp_path, "  network: none", f"  network: none\n{packages}"), Memfd.SYSCTL)
    assert [(bind.target, bind.executable) for bind in made.view.binds] == [("/opt/tool", True), ("/usr", True)]
    assert dict(made.landlock)["/opt/tool"] == "exec"


def test_files_outside_of_etc_and_extra_paths_get_their_own_rule(tmp_path: Path) -> None:
    found = small(
        tmp_path,
        "  landlock: {scopes: true}",
        "  landlock: {scopes: true, paths: [{path: /opt/y, access: read, why: a test of it}]}",
    )
    assert dict(compiler.landlock_rules(found.spec))["/opt/y"] == "read"
    file = "{path: /x, content: hi, why: a test of it}"
    text = f"    files: [{file}]\n    binds:\n      - {{source: /opt/z, why: a test of it}}"
    rules = dict(compiler.landlock_rules(small(tmp_path, "    binds:", text).spec))
    assert (rules["/x"], rules["/opt/z"]) == ("read", "read")


def test_an_image_is_the_root_with_rules_for_its_usual_directories(tmp_path: Path) -> None:
    found = small(
        tmp_path,
        "    binds:\n      - {source: /usr, executable: true, why: programs of the host}",
        "    image: {path: /opt/images/debian, why: a test of it}",
    )
    made = compiler.compiled(found, Memfd.SYSCTL)
    assert made.view.image == "/opt/images/debian"
    assert dict(made.landlock)["/usr"] == "exec"
