import os
from pathlib import Path

import pytest

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.outputs import write
from sandboxd.client import OutputFile


def test_files_are_written_below_the_directory_and_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, [OutputFile("a/b/c", b"long content", 0o644), OutputFile("t", b"", 0o755)])
    write(out, [OutputFile("a/b/c", b"short", 0o644)])
    assert (out / "a/b/c").read_bytes() == b"short"
    assert os.access(out / "t", os.X_OK)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "", ".", "a\0b"])
def test_name_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(Mistake, match="leads out"):
        write(tmp_path / "out", [OutputFile(path, b"x", 0o644)])
    assert list(tmp_path.rglob("x")) == []


@pytest.mark.parametrize("path", ["link", "dir/x"])
def test_link_in_the_directory_is_not_followed(tmp_path: Path, path: str) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "x").write_bytes(b"mine")
    (out / "link").symlink_to(outside / "x")
    (out / "dir").symlink_to(outside)
    with pytest.raises(Mistake, match="cannot write"):
        write(out, [OutputFile(path, b"theirs", 0o644)])
    assert (outside / "x").read_bytes() == b"mine"


def test_set_uid_bit_does_not_come_along(tmp_path: Path) -> None:
    write(tmp_path, [OutputFile("s", b"", 0o6777)])
    assert (tmp_path / "s").stat().st_mode & 0o7022 == 0
