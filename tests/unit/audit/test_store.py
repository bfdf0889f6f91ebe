import hashlib
import os
import resource
import signal
import stat
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sandboxd.audit.store import Store, find, find_all, packs


def _packs(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@pytest.mark.parametrize("fsync", [False, True])
def test_a_document_is_found_by_its_digest(tmp_path: Path, fsync: bool) -> None:
    with closing(Store(tmp_path / "documents", fsync=fsync)) as store:
        digests = [store.put(document) for document in (b"hello", b"", b"\n\x00", b"hello")]
        assert digests[0] == hashlib.sha256(b"hello").hexdigest() == digests[3]
        assert [find(tmp_path / "documents", digest) for digest in digests] == [b"hello", b"", b"\n\x00", b"hello"]


def test_what_looks_like_a_header_inside_a_document_is_none(tmp_path: Path) -> None:
    inner = hashlib.sha256(b"x").hexdigest()
    with closing(Store(tmp_path, fsync=False)) as store:
        store.put(f"a\n{inner} 1\nx\n".encode())
        with pytest.raises(FileNotFoundError):
            find(tmp_path, inner)


def test_documents_are_private(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "documents", fsync=False)) as store:
        store.put(b"hello")
    (pack,) = _packs(tmp_path / "documents")
    assert stat.S_IMODE(pack.stat().st_mode) == 0o600
    assert stat.S_IMODE(pack.parent.stat().st_mode) == 0o700


def test_full_pack_is_followed_by_another_and_both_are_searched(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False, pack_bytes=100)) as store:
        digests = [store.put(document) for document in (b"a" * 100, b"b" * 100, b"c")]
        assert len(_packs(tmp_path)) == 3
        assert [find(tmp_path, digest)[:1] for digest in digests] == [b"a", b"b", b"c"]


def test_what_an_earlier_process_stored_is_found_behind_what_it_tore(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False)) as former:
        digest = former.put(b"hello")
    with _packs(tmp_path)[0].open("ab") as pack:
        pack.write(b"0" * 64 + b" 9\nha")
    with closing(Store(tmp_path, fsync=False)) as store:
        later = store.put(b"later")
        assert (find(tmp_path, digest), find(tmp_path, later)) == (b"hello", b"later")
        with pytest.raises(ValueError, match="not what was stored"):
            find(tmp_path, "0" * 64)


def test_torn_document_is_found_whole_in_an_older_pack(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False)) as former:
        digest = former.put(b"hello")
    with closing(Store(tmp_path, fsync=False)) as torn:
        torn.put(b"hello")
    _packs(tmp_path)[1].write_bytes(digest.encode() + b" 5\nhel")
    assert find(tmp_path, digest) == b"hello"


def test_length_that_no_pack_can_have_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "0.pack").write_bytes(b"0" * 64 + b" 9999999999\nhello\n")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not what was stored"):
            find(tmp_path, "0" * 64)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_changed_document_is_not_given_out(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False)) as store:
        digest = store.put(b"hello")
        (pack,) = _packs(tmp_path)
        pack.write_bytes(pack.read_bytes().replace(b"hello", b"other"))
        with pytest.raises(ValueError, match="not what was stored"):
            find(tmp_path, digest)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False)) as store:
        first = store.put(b"first")
        size = _packs(tmp_path)[0].stat().st_size
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            for room in (0, 10):  # nothing, then a part of it
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, before[1]))
                with pytest.raises(OSError, match=r"File too large|No space"):
                    store.put(b"x" * 100)
                assert _packs(tmp_path)[0].stat().st_size == size
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert find(tmp_path, store.put(b"x" * 100)) == b"x" * 100
        assert find(tmp_path, first) == b"first"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda pack: os.truncate(pack, 10)], ids=["deleted", "cut"])
def test_pack_that_was_deleted_or_cut_meanwhile_takes_no_more(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    """Nobody would find what is put behind it."""
    with closing(Store(tmp_path, fsync=False)) as store:
        store.put(b"first")
        spoil(_packs(tmp_path)[0])
        later = [store.put(document) for document in (b"second", b"third")]
        assert [find(tmp_path, digest) for digest in later] == [b"second", b"third"]


def test_a_link_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "documents")  # noqa: PTH211
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        Store(tmp_path / "documents", fsync=False)


def test_pack_that_is_deleted_while_they_are_read_is_passed_over(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False, pack_bytes=1)) as store:
        first, second, third = (store.put(document) for document in (b"first", b"second", b"third"))
    reading = packs(tmp_path)
    newest = next(reading)
    assert os.pread(newest, 64, 0) == third.encode()
    _packs(tmp_path)[1].unlink()
    assert [os.pread(pack, 64, 0) for pack in reading] == [first.encode()]
    with pytest.raises(FileNotFoundError):
        find(tmp_path, second)


def test_reader_leaves_no_descriptor_open(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False, pack_bytes=1)) as store:
        digests = [store.put(document) for document in (b"first", b"second", b"third")]
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert find(tmp_path, digests[1]) == b"second"
    with pytest.raises(FileNotFoundError):
        find(tmp_path, "0" * 64)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("place", ["with-a-linked-pack", "linked-directory"])
def test_reader_follows_no_link(place: str, tmp_path: Path) -> None:
    """The daemon owns the directory and root may be the reader."""
    with closing(Store(tmp_path / "documents", fsync=False)) as store:
        digest = store.put(b"hello")
    (pack,) = _packs(tmp_path / "documents")
    assert find(pack.parent, digest) == b"hello"
    (tmp_path / "with-a-linked-pack").mkdir()
    (tmp_path / "with-a-linked-pack" / "1.pack").symlink_to(pack)
    (tmp_path / "linked-directory").symlink_to(pack.parent)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        find(tmp_path / place, digest)


def test_reader_does_not_wait_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.pack")
    with pytest.raises(PermissionError, match="not a regular file"):
        find(tmp_path, "0" * 64)


def test_all_of_several_documents_are_found_in_one_pass_and_changed_ones_left_out(tmp_path: Path) -> None:
    with closing(Store(tmp_path, fsync=False, pack_bytes=1)) as store:  # a pack for each
        first, second, third = (store.put(text) for text in (b"one", b"two", b"three"))
    assert len(list(tmp_path.iterdir())) == 3
    absent = "0" * 64
    assert dict(find_all(tmp_path, frozenset((first, third, absent)))) == {first: b"one", third: b"three"}
    for pack in tmp_path.iterdir():
        pack.write_bytes(pack.read_bytes().replace(b"\nthree\n", b"\nother\n"))
    assert dict(find_all(tmp_path, frozenset((second, third)))) == {second: b"two"}
