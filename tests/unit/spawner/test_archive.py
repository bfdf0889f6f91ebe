"""Packing a hostile tree, and unpacking it again."""

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from sandboxd.spawner import archive
from sandboxd.spawner.archive import Packer, escaped


def packed(tree: Path, most_bytes: int = 1 << 20) -> tuple[Packer, tarfile.TarFile]:
    pieces: list[bytes] = []
    packer = Packer(pieces.append, most_bytes)
    packer.pack(os.open(tree, os.O_RDONLY | os.O_DIRECTORY))
    return packer, tarfile.open(fileobj=io.BytesIO(b"".join(pieces)))


def read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


def test_files_come_whole_and_in_their_directories(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").write_bytes(b"x" * 100_001)
    (tmp_path / "empty").touch(0o777)
    packer, found = packed(tmp_path)
    assert found.getnames() == ["workspace/deep", "workspace/deep/er", "workspace/deep/er/a", "workspace/empty"]
    assert read(found, "workspace/deep/er/a") == b"x" * 100_001
    assert {member.mode for member in found.getmembers()} == {0o755, 0o644}, "nothing can be run, or gain rights"
    assert packer.complete


@pytest.mark.parametrize(
    "name",
    [
        b"..\\..",
        b"a\nb",
        b"\xff\xfe",
        b"\x1b[2J",
        b"C:",
        b"%2e%2e",
        "\u202egpj.exe".encode(),
        b"x" * 255,
        b"-rf",
        b"\xe2\x80\xa8" * 80,
    ],
)
def test_no_name_leaves_as_it_was_but_each_can_be_told_from_others(tmp_path: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"in it")
    _, found = packed(tmp_path)
    (member,) = found.getnames()
    assert member == f"workspace/{escaped(name)}"
    assert member.isascii() and member.isprintable() and member.count("/") == 1 and "\\" not in member
    assert read(found, member) == b"in it"


def test_no_two_names_become_one() -> None:
    assert len({escaped(name) for name in (b"%41", b"A", b"%", b"%25")}) == 4


def test_links_and_specials_are_listed_and_never_packed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/shadow")
    (tmp_path / "dir").symlink_to("/etc")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
    packer, found = packed(tmp_path)
    assert found.getnames() == []
    assert [(entry["path"], entry["kind"]) for entry in packer.entries] == [
        ("workspace/dir", "link"),
        ("workspace/fifo", "fifo"),
        ("workspace/link", "link"),
        ("workspace/sock", "socket"),
    ]
    assert packer.entries[2]["target"] == "%2Fetc%2Fshadow"


def test_what_is_over_the_bytes_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)
    os.truncate(tmp_path / "big", 1 << 40)
    (tmp_path / "small").write_bytes(b"x" * 10)
    packer, found = packed(tmp_path, 10)
    assert found.getnames() == ["workspace/small"]
    assert packer.entries[0]["left_out"] == "over the bytes that may be taken"
    assert not packer.complete


def test_depth_and_number_of_entries_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_DEPTH", 2)
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    packer, _ = packed(tmp_path)
    assert (packer.entries[-1]["path"], packer.entries[-1]["left_out"]) == ("workspace/a/b/c", "too deep")
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    packer, _ = packed(tmp_path)
    assert (len(packer.entries), packer.complete) == (2, False)


def test_file_that_shrinks_is_filled_up_and_one_that_grows_is_cut(tmp_path: Path) -> None:
    """The header has been written by then."""
    for change, expected in ((b"", b"\0" * 5), (b"1234567", b"12345")):
        (tmp_path / "f").write_bytes(b"12345")
        pieces: list[bytes] = []

        def write(piece: bytes, change: bytes = change, pieces: list[bytes] = pieces) -> None:
            (tmp_path / "f").write_bytes(change)
            pieces.append(piece)

        Packer(write, 100).pack(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as found:
            assert read(found, "workspace/f") == expected


def test_directory_that_is_swapped_for_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    pieces: list[bytes] = []
    packer = Packer(pieces.append, 1 << 20)
    stat = os.stat

    def swapping(name: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        found = stat(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if name == "a":
            (tmp_path / "tree" / "a").rmdir()
            (tmp_path / "tree" / "a").symlink_to(outside)
        return found

    tree = os.open(tmp_path / "tree", os.O_RDONLY | os.O_DIRECTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", swapping)
        packer.pack(tree)
    assert b"secret" not in b"".join(pieces)
    assert "left_out" in packer.entries[0]


def test_names_take_no_more_than_they_may_however_deep_they_are(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(60):
        os.mkdir("\x01" * 255, dir_fd=directory)
        below = os.open("\x01" * 255, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = below
    for number in range(300):
        os.close(os.open(f"{number:04}", os.O_CREAT, 0o600, dir_fd=directory))
    os.close(directory)
    packer, found = packed(tmp_path)
    assert sum(len(str(entry["path"])) for entry in packer.entries) > archive.MAX_NAME_CHARS - 50_000
    assert packer.name_chars_left >= 0 and not packer.complete
    assert len(found.getnames()) == len(packer.entries)


def test_link_whose_target_is_over_what_names_may_take_is_named_without_it(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("x" * 100)
    packer = Packer(lambda _: None, 0, name_chars_left=50)
    packer.pack(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
    (entry,) = packer.entries
    assert "target" not in entry and entry["left_out"] == "over what names may take" and not packer.complete
