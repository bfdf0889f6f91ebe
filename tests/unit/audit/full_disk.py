"""Run in a mount namespace of its own: a journal on a tmpfs that fills up (ENOSPC), then read-only (EROFS)."""

import subprocess
import sys
from pathlib import Path

from sandboxd.audit.journal import Journal
from sandboxd.audit.line import body
from sandboxd.errors import AuditUnavailable
from tests.fakes.events import violated
from tests.fakes.journal import checked, keep, open_journal


def main(directory: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(directory)], check=True)
    journal = open_journal(directory / "journal")
    journal.checkpoint(0)
    keep(journal)
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(40 * 1024))
    written = 0
    while refused(journal, written) is None:
        written += 1
    assert written > 5, written
    for _ in range(5):
        message = refused(journal, written)
        assert message is not None
        assert "No space left on device" in message or "bytes were written" in message, message
    whole = checked(directory / "journal")
    assert (whole.ok, whole.records, whole.torn_bytes) == (True, written + 1, 0), whole
    ballast.unlink()
    assert refused(journal, written) is None
    assert checked(directory / "journal").records == written + 2
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
    try:
        open_journal(directory / "journal")
    except AuditUnavailable as error:
        assert "Read-only file system" in error.message, error.message
    else:
        raise AssertionError("a read-only journal was opened")


def refused(journal: Journal, number: int) -> str | None:
    try:
        journal.append(body(violated(f"number {number}" + "x" * 200)), number)
    except AuditUnavailable as error:
        return error.message
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
