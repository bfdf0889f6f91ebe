import os
import stat
from pathlib import Path

import pytest

from sandboxd.audit.segment import lines, open_private, private_directory, segment_name, segments


def test_segments_are_in_the_order_of_their_records_and_others_are_not_touched(tmp_path: Path) -> None:
    for name in (segment_name(100), segment_name(9), "lock", "1.jsonl", segment_name(1) + ".old"):
        (tmp_path / name).touch()
    assert [segment.first_seq for segment in segments(tmp_path)] == [9, 100]


def test_a_directory_is_made_private_and_one_that_was_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for path in (tmp_path / "new" / "deep", tmp_path / "open"):
        os.close(private_directory(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        private_directory(tmp_path / "link")


def test_links_and_fifos_in_place_of_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo")
    directory = private_directory(tmp_path)
    try:
        for name in ("link", "fifo"):
            with pytest.raises(OSError):
                os.close(open_private(directory, name, os.O_RDWR | os.O_CREAT))
    finally:
        os.close(directory)
    assert not (tmp_path / "target").exists()


def test_whole_lines_come_with_their_offsets_whatever_the_blocks(tmp_path: Path) -> None:
    content = [b"x" * size for size in (0, 1, 3_000_000, 5)]
    (tmp_path / "file").write_bytes(b"\n".join(content) + b"\ntorn")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert list(lines(descriptor)) == [(0, content[0]), (1, content[1]), (3, content[2]), (3_000_004, content[3])]
        assert list(lines(descriptor, 3_000_004)) == [(3_000_004, content[3])]
        assert list(lines(descriptor, 0, 3)) == [(0, content[0]), (1, content[1])]
    finally:
        os.close(descriptor)
