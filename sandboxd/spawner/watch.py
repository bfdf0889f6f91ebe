"""Sees which limits a program reached and survived: the kernel counts none of these, so init samples them.

A process that runs into its descriptor limit and is gone within one sample is missed; the limit held all the same.
Called by `init`, inside the sandbox.
"""

import os
from contextlib import suppress

from sandboxd.spawner.template import TMP, WORKSPACE

_MAX_ENTRIES = 5_000
_PLACES = ((WORKSPACE, "workspace"), (TMP, "tmp"))


class LimitWatch:
    """One execution's reached limits, by `model.LimitId` value."""

    def __init__(self, open_files: int, file_size_bytes: int) -> None:
        self._open_files = open_files
        self._file_size_bytes = file_size_bytes
        self._reached: set[str] = set()

    def sample(self, main: int) -> None:
        """A look at every process of the sandbox and at its file systems."""
        if "open_files" not in self._reached and any(self._is_full(pid) for pid in _processes(main)):
            self._reached.add("open_files")
        self._look_at_storage()

    def finish(self) -> tuple[str, ...]:
        """The last look; all that was reached."""
        with_files = self._look_at_storage()
        if any(_largest_file(place) >= self._file_size_bytes for place in with_files):
            self._reached.add("file_size")
        return tuple(sorted(self._reached))

    def _is_full(self, pid: int) -> bool:
        try:
            return len(os.listdir(f"/proc/{pid}/fd")) >= self._open_files
        except OSError:
            return False  # gone, or no proc here

    def _look_at_storage(self) -> list[str]:
        """The places that hold more than their own directory."""
        with_files = []
        for place, name in _PLACES:
            room = os.statvfs(place)
            if room.f_files - room.f_ffree > 1:
                with_files.append(place)
            if room.f_bfree == 0:
                self._reached.add(f"{name}_bytes")
            if room.f_ffree == 0:
                self._reached.add(f"{name}_inodes")
        return with_files


def _processes(main: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal() and name != "1"]
    except OSError:
        return [main]


def _largest_file(top: str) -> int:
    largest, looked_at, pending = 0, 0, [top]
    while pending and looked_at < _MAX_ENTRIES:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                looked_at += 1
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    largest = max(largest, entry.stat(follow_symlinks=False).st_size)
                if looked_at >= _MAX_ENTRIES:
                    break
    return largest
