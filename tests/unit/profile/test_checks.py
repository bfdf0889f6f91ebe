import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.errors import ProfileInvalid
from sandboxd.profile import checks
from sandboxd.profile.load import load_profiles, parse
from tests.unit.profile.profiles import COMPLETE, small


def refusal(old: str, new: str) -> str:
    assert old in COMPLETE
    with pytest.raises(ProfileInvalid) as caught:
        parse(COMPLETE.replace(old, new).encode(), "p.yaml")
    return caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "/", "/proc", "/proc/self", "/sys", "/run", "/run/docker.sock", "/var/run", "/dev", "/dev/shm", "/root",
        "/home", "/home/alice", "/etc", "/etc/shadow", "/etc/ssh", "/var", "/var/lib", "/var/lib/kubelet/pods", "/tmp",
        "/var/lib/sandboxd/journal", "/home/alice/.ssh", "/opt/x/.aws", "/usr/../etc", "/usr//lib", "/usr/",
    ],
)  # fmt: skip
def test_what_would_show_the_host_is_refused_with_its_reason(source: str) -> None:
    message = refusal("source: /usr", f"source: {source}")
    assert message.startswith("p.yaml:10: ")
    assert repr(source) in message


def test_a_link_to_a_hidden_tree_is_refused_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert "/proc" in str(checks.source_problem(str(tmp_path / "link")))


def test_sockets_directories_of_sockets_and_devices_are_refused(tmp_path: Path) -> None:
    assert checks.source_problem(str(tmp_path)) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert "neither a directory nor" in str(checks.source_problem(str(tmp_path / "s")))
        assert "holds the socket 's'" in str(checks.source_problem(str(tmp_path)))


@pytest.mark.parametrize("name", ["a b", "a\rb", "a\x1cb", "a\xa0b", "a\u2028b"], ids=ascii)
def test_a_directory_with_a_file_system_of_the_kernel_below_is_refused(name: str, tmp_path: Path) -> None:
    tmp_path = tmp_path / name
    (tmp_path / "sys").mkdir(parents=True)
    assert checks.source_problem(str(tmp_path)) is None
    ask = f"from sandboxd.profile import checks; print(checks.source_problem({str(tmp_path)!r}))"
    mount = 'mount --rbind /sys "$1/sys" && exec "$2" -c "$3"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", mount, "sh", str(tmp_path)]
    run = subprocess.run([*command, sys.executable, ask], capture_output=True, text=True, check=True)
    assert f"(sysfs) is mounted at {str(tmp_path / 'sys')!r}" in run.stdout


def test_a_directory_that_everyone_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "everyone" in str(checks.source_problem(str(tmp_path)))


def test_a_path_that_everyone_can_swap_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "open" / "inner"
    inner.mkdir(parents=True)
    assert checks.source_problem(str(inner)) is None
    (tmp_path / "open").chmod(0o777)
    assert "in its place" in str(checks.source_problem(str(inner)))


def test_a_path_that_cannot_be_looked_at_is_refused_and_a_missing_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be checked" in str(checks.source_problem(str(tmp_path / "file" / "below")))
    assert checks.source_problem(str(tmp_path / "missing")) is None


def test_the_daemons_own_directories_are_refused_from_inside_and_above(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for path in (state, state / "journal", tmp_path):
        assert "belongs to the daemon" in str(checks.source_problem(str(path), [str(state)]))


def test_usr_and_single_files_of_etc_are_fine() -> None:
    assert checks.source_problem("/usr") is None
    assert checks.source_problem("/etc/ld.so.cache") is None


@pytest.mark.parametrize("target", ["/", "/proc/x", "/tmp", "/workspace/x", "/dev/null", "/a/../b", "//x"])
def test_a_bind_cannot_cover_what_belongs_to_the_sandbox(target: str) -> None:
    assert repr(target) in refusal("source: /usr,", f"source: /usr, target: {target},")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ptrace", "never allowed: reach into other processes"),
        ("io_uring_setup", "never allowed"),
        ("clone3", "always answers ENOSYS"),
        ("opeant", "not a system call; did you mean 'openat'"),
    ],
)
def test_calls_below_the_floor_and_unknown_ones_are_refused(name: str, words: str) -> None:
    message = refusal("[execve, exit_group", f"[execve, {name}, exit_group")
    assert message.startswith("p.yaml:17: ")
    assert words in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("pids: 8", "pids: 0", "below the least that works"),
        ("memory_bytes: 64MiB", "memory_bytes: 1KiB", "below the least that works"),
        ("{default: best_effort}", "{default: require, guarantees: {network.none: best_effort}}", "part of the floor"),
        ("exit_group, read", "exit_group, read, read", "'read' stands here 2 times"),
        ("why: the least", "args: [{index: 0, mask: 1, one_of: [2]}], why: the least", "outside of the mask"),
        ("cwd: /workspace", "cwd: /workspace/../x", "not a plain path"),
        ("cwd: /workspace", "cwd: /workspace\n  interpreters: [{language: x, argv: [/bin/x], file_name: f}]", "{file}"),
        ("{scopes: true}", "{scopes: true, paths: [{path: /tmp/x, access: exec, why: a test of it}]}", "belongs to"),
        ("isolation: process", "isolation: process\n  packages: [{path: /sys/x, why: a test of it}]", "'/sys/x'"),
    ],
)
def test_other_words_below_the_floor_are_refused(old: str, new: str, words: str) -> None:
    assert words in refusal(old, new)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  network: none\n", "", "'spec.network' is set neither here nor by a parent"),
        ("pids: 8, ", "", "'spec.limits.pids' is set neither"),
        ("{default: best_effort}", "{}", "'spec.enforcement.default'"),
        ("{scopes: true}", "{}", "'spec.landlock.scopes'"),
        ("[execve, exit_group", "[exit_group", "lacks 'execve'"),
        (
            "      - {source: /usr, executable: true, why: programs of the host}",
            "      []",
            "neither an image nor binds",
        ),
        (
            "workspace: {executable: false}\n  proc: subset",
            "workspace: {executable: true}\n  proc: subset\n  # {default: require}",
            "",
        ),
    ],
)
def test_an_incomplete_profile_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    if not words:
        assert small(tmp_path, old, new).spec.workspace is not None
        return
    with pytest.raises(ProfileInvalid, match=words.replace("[", r"\[")):
        small(tmp_path, old, new)


def test_an_executable_workspace_contradicts_required_noexec(tmp_path: Path) -> None:
    text = COMPLETE.replace("executable: false", "executable: true").replace("default: best_effort", "default: require")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ProfileInvalid, match=r"filesystem\.noexec"):
        load_profiles([tmp_path])
