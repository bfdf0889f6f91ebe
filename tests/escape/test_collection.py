"""Table "Upload, download, artifact collection", C01-C10 and C14: what goes in by name and comes out by glob.

All that is hostile about a collected file the program made itself; the daemon must neither follow, hang nor crash.
"""

import secrets
from pathlib import Path

import pytest

from sandboxd.client import Client, EndReason, InvalidRequest, Result
from tests.escape.confined import Confined

BAD_NAMES = [
    "../x", "/abs", "a/../../x", ".", "..", "", "a//b", "a/", "./x", "a/./b", "x\0y", "x\ny", "x\x1b[2Jy", "x" * 256,
    "/".join(["d" * 100] * 41), "/".join(["d"] * 1000),
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:20])
def test_c01_c02_bad_input_name_is_refused(name: str, client: Client) -> None:
    with pytest.raises(InvalidRequest):
        client.run(["/bin/true"], files={name: b"x"})


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "a/../../*", "", "x\0", "/proc/self/environ", "**/../*"])
def test_c01_bad_collect_pattern_is_refused(pattern: str, client: Client) -> None:
    with pytest.raises(InvalidRequest):
        client.run(["/bin/true"], collect=[pattern])


def test_names_that_look_odd_but_are_fine_go_in_and_come_out(client: Client) -> None:
    names = ["a b", "ü", "-rf", "a/b/c", "x" * 255, "CON", "con", "a*b"]
    result = client.run(["/bin/true"], files={name: name.encode() for name in names}, collect=["**"])
    assert {file.path: file.content for file in result.files} == {name: name.encode() for name in names}


def _shell(confined: Confined, script: str, *collect: str) -> Result:
    result = confined.client.run(["/bin/bash", "-c", script], collect=collect)
    assert result.end_reason is EndReason.EXITED, result
    return result


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/", "/dev/zero", "loop"])
def test_c04_link_is_not_followed(target: str, confined: Confined) -> None:
    result = _shell(confined, f"echo mine > mine; ln -s {target} loop; readlink loop; ln -s {target} out/ || true", "*")
    assert result.stdout == f"{target}\n".encode(), "the control: the link is there"
    assert [(file.path, file.content) for file in result.files] == [("mine", b"mine\n")]


def test_c04_link_to_the_daemons_files_is_not_followed(confined: Confined) -> None:
    assert confined.daemon.config.read_bytes(), "the control: the host can read it"
    result = _shell(confined, f"ln -s {confined.daemon.config} out; readlink out", "out")
    assert result.stdout == f"{confined.daemon.config}\n".encode()
    assert result.files == ()


def test_c03_directory_swapped_for_a_link_gives_no_foreign_byte(confined: Confined) -> None:
    """A child of the program goes on swapping while the files are read, if it is still let."""
    script = """
mkdir -p out; echo mine > out/passwd; ln -s /etc link
setsid python3 -c '
import ctypes
while True: ctypes.CDLL(None).renameat2(-100, b"out", -100, b"link", 2)
' </dev/null >/dev/null 2>&1 &
sleep 0.2"""
    for _ in range(10):
        result = _shell(confined, script, "out/passwd", "link/passwd")
        assert {file.content for file in result.files} <= {b"mine\n"}


def test_c05_hard_link_is_the_programs_own_file(confined: Confined) -> None:
    result = _shell(confined, "echo one > a; ln a b; ln /etc/passwd c", "*")
    assert {file.path: file.content for file in result.files} in ({}, {"a": b"one\n", "b": b"one\n"})


def test_c06_c07_only_regular_files_come(confined: Confined) -> None:
    script = """
mkfifo result.txt; mkdir d.txt; echo ok > ok.txt
python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind("sock.txt")'
stat -c %F *.txt"""
    result = _shell(confined, script, "*.txt")
    kinds = {b"directory", b"fifo", b"regular file", b"socket"}
    assert set(result.stdout.splitlines()) == kinds, "the control: all of them match"
    assert [file.path for file in result.files] == ["ok.txt"]


def test_c09_file_that_changes_while_it_is_read_does_no_harm(confined: Confined) -> None:
    script = """
setsid bash -c 'while :; do head -c 3000000 /dev/zero > big; : > big; done' </dev/null >/dev/null 2>&1 &
sleep 0.2"""
    for _ in range(5):
        result = _shell(confined, script, "big")
        assert all(not file.content.strip(b"\0") for file in result.files)


def test_c10_many_and_deep_files_reach_a_cap_and_no_further(confined: Confined) -> None:
    many = _shell(confined, "for i in {1..2000}; do : > f$i; done", "**")
    assert len(many.files) < 2000
    assert "output_files" in many.limits_hit
    dig = 'python3 -c \'import os\nfor _ in range(1000): os.mkdir("d"); os.chdir("d")\nopen("f", "w")\''
    deep = _shell(confined, dig, "**")
    assert deep.exit_code == 0
    assert deep.files == ()


def test_output_beyond_the_cap_is_left_out_and_said(confined: Confined) -> None:
    result = confined.client.run(
        ["/bin/bash", "-c", "head -c 100000 /dev/zero > big; echo x > small"],
        collect=["big", "small"],
        limits={"output_files_bytes": 1000},
    )
    assert [file.path for file in result.files] == ["small"]
    assert [skipped.path for skipped in result.files_skipped] == ["big"]
    assert "output_files" in result.limits_hit


@pytest.mark.parametrize("name", ["a\\nb", "\\x1b[2J", "\\xff\\xfe", "\\x22}{\\x22rule", "\\xe2\\x80\\xa8"])
def test_c14_odd_output_name_does_no_harm(name: str, confined: Confined) -> None:
    """Bytes that are no UTF-8 cannot come; whatever comes, the record stays one event."""
    result = _shell(confined, f"echo x > $'{name}'; echo ok > ok", "*")
    assert "ok" in {file.path for file in result.files}
    assert confined.daemon.journal(), "each line of the journal parses"


def test_c04_input_is_not_written_through_a_link(confined: Confined, tmp_path: Path) -> None:
    """Nothing of the workspace is there before the inputs, so no link can be; the host's file stays as it is."""
    canary = tmp_path / "canary"
    canary.write_text(secret := secrets.token_hex())
    with pytest.raises(InvalidRequest):
        confined.client.run(["/bin/true"], files={str(canary): b"owned"})
    assert canary.read_text() == secret
