import hashlib
import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from sandboxd.audit.store import Store


@pytest.mark.parametrize("fsync", [False, True])
def test_a_document_is_found_by_its_digest(tmp_path: Path, fsync: bool) -> None:
    store = Store(tmp_path / "documents", fsync=fsync)
    digest = store.put(b"hello")
    assert digest == hashlib.sha256(b"hello").hexdigest() == store.put(b"hello")
    assert store.get(digest) == b"hello"


def test_documents_are_private_and_no_draft_is_left(tmp_path: Path) -> None:
    digest = Store(tmp_path / "documents", fsync=False).put(b"hello")
    files = [path for path in (tmp_path / "documents").rglob("*") if path.is_file()]
    assert files == [tmp_path / "documents" / digest[:2] / digest]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700


def test_a_changed_document_is_not_given_out(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync=False)
    digest = store.put(b"hello")
    (tmp_path / digest[:2] / digest).write_bytes(b"other")
    with pytest.raises(ValueError, match="not what was stored"):
        store.get(digest)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, fsync=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.put(b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.get(store.put(b"x" * 100))


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    store = Store(tmp_path / "documents", fsync=False)
    digest = hashlib.sha256(b"hello").hexdigest()
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "documents" / digest[:2]).rmdir()
    os.symlink(outside, tmp_path / "documents" / digest[:2])  # noqa: PTH211
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        store.put(b"hello")
    assert list(outside.iterdir()) == []
