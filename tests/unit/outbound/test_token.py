import os
from pathlib import Path

import pytest

from sandboxd.outbound.token import MAX_TOKEN_BYTES, TokenFile, TokenUnreadable


def written(path: Path, content: bytes) -> TokenFile:
    path.write_bytes(content)
    return TokenFile(str(path))


def test_token_is_the_one_word_in_the_file(tmp_path: Path) -> None:
    assert written(tmp_path / "t", b" s3cret.~+/=\r\n").token() == "s3cret.~+/="


def test_token_is_read_again_when_it_was_written_or_replaced(tmp_path: Path) -> None:
    file = written(tmp_path / "t", b"one")
    assert file.token() == "one"
    (tmp_path / "t").write_bytes(b"three")
    assert file.token() == "three"
    (tmp_path / "new").write_bytes(b"seven")
    (tmp_path / "new").replace(tmp_path / "t")
    assert file.token() == "seven"


def test_token_behind_a_link_that_is_turned_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes renews it."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "t"
    link.symlink_to("one")
    file = TokenFile(str(link))
    assert file.token() == "one"
    (tmp_path / "l").symlink_to("two")
    (tmp_path / "l").replace(link)
    assert file.token() == "two"


def test_a_file_that_went_bad_gives_no_token_rather_than_the_old_one(tmp_path: Path) -> None:
    file = written(tmp_path / "t", b"one")
    assert file.token() == "one"
    (tmp_path / "t").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(TokenUnreadable, match="one word"):
            file.token()
    (tmp_path / "t").unlink()
    with pytest.raises(TokenUnreadable, match="No such file"):
        file.token()


@pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"a\nX-Evil: 1", b"a\0b", "é".encode(), b"\x7f"])
def test_what_is_no_one_word_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(TokenUnreadable, match="one word of printable ASCII") as caught:
        written(tmp_path / "t", content).token()
    assert "Evil" not in str(caught.value)


def test_what_is_no_ordinary_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TokenUnreadable, match="not a regular file"):
        TokenFile(str(tmp_path / "pipe")).token()
    with pytest.raises(TokenUnreadable):
        TokenFile(str(tmp_path)).token()
    with pytest.raises(TokenUnreadable, match="is over"):
        written(tmp_path / "t", b"x" * (MAX_TOKEN_BYTES + 1)).token()
