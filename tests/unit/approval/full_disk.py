"""Run in a mount namespace of its own: a store on a tmpfs that fills up (ENOSPC), then is read-only (EROFS)."""

import contextlib
import subprocess
import sys
from pathlib import Path

from sandboxd.approval.case import Case
from sandboxd.approval.store import Store
from tests.fakes.approvals import case, yes


def main(directory: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(directory)], check=True)
    store = Store(directory / "approvals")
    store.save(case())
    ballast = directory / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(1 << 20))
    assert "No space left on device" in refused(store, case(yes()))
    assert store.load() == (case(),), "it is still pending"
    ballast.unlink()
    store.save(case(yes()))
    assert store.load() == (case(yes()),)
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
    try:
        store.remove(case(yes()))
    except OSError as error:
        assert "Read-only file system" in str(error), error
    else:
        raise AssertionError("a grant was said to be off a disk that cannot be written")


def refused(store: Store, change: Case) -> str:
    try:
        store.save(change)
    except OSError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
