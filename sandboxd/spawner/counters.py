"""The one parser of cgroup counter files, v1 and v2, from descriptors or texts. Pure data; standard library only.

A counter's name is its file's name in the kernel (`memory.events`, `cpuacct.usage_user`, …), plus `oom`. Used by the
spawner for a sandbox's last numbers and by `runtime.counters` in the daemon for the living ones. Formats: Linux
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/; keys that a kernel lacks or adds are no error.
"""

import os
from collections.abc import Callable, Mapping

OOM = "oom"  # v1: an eventfd, readable on an OOM; v2: memory.events again, EPOLLPRI when it changes

V2_FILES = ("memory.events", "memory.peak", "cpu.stat", "pids.peak", "pids.events", "io.stat")
V1_FILES = (
    ("memory", "memory.oom_control"),
    ("memory", "memory.max_usage_in_bytes"),
    ("cpuacct", "cpuacct.usage_user"),
    ("cpuacct", "cpuacct.usage_sys"),
    ("cpu", "cpu.stat"),
    ("pids", "pids.peak"),
    ("pids", "pids.events"),
    ("blkio", "blkio.throttle.io_service_bytes_recursive"),
)

_ADD_UP = frozenset(
    ("cpu_user_seconds", "cpu_system_seconds", "cpu_throttled", "io_read_bytes", "io_write_bytes", "pids_denied")
)
_READ_BYTES = 64 * 1024
_MOST_DIGITS = 20  # a counter has 64 bits; more is no counter, and might not even fit a float


def read(fds: Mapping[str, int]) -> tuple[tuple[str, float], ...]:
    """Numbers by `SandboxUsage` field name, as of now. A counter whose cgroup is gone (ENODEV) is left out."""
    texts: dict[str, str] = {}
    for name, fd in fds.items():
        if name not in _PARSERS:
            continue
        try:
            texts[name] = os.pread(fd, _READ_BYTES, 0).decode("ascii", "replace")
        except OSError:
            continue
    return parse(texts)


def parse(texts: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """The same from the files' contents."""
    numbers: dict[str, float] = {}
    for name, text in texts.items():
        parser = _PARSERS.get(name)
        if parser is not None:
            numbers.update(parser(text))
    return tuple(sorted(numbers.items()))


def since(
    start: tuple[tuple[str, float], ...], numbers: tuple[tuple[str, float], ...]
) -> tuple[tuple[str, float], ...]:
    """`numbers` without what had added up to `start`; a peak is one all the same."""
    before = dict(start)
    return tuple((name, max(0.0, value - before.get(name, 0.0) * (name in _ADD_UP))) for name, value in numbers)


def flat_keyed(text: str) -> dict[str, int]:
    """`KEY VALUE` lines; lines of another shape are skipped."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if _is_count(value):
            values[key] = int(value)
    return values


def _is_count(word: str) -> bool:
    return word.isdecimal() and len(word) <= _MOST_DIGITS


def _picked(*wanted: tuple[str, str, float]) -> Callable[[str], dict[str, float]]:
    """Parser of a flat keyed file: each field is a key times a factor."""

    def parser(text: str) -> dict[str, float]:
        values = flat_keyed(text)
        return {field: values[key] * factor for field, key, factor in wanted if key in values}

    return parser


def _single(field: str, factor: float) -> Callable[[str], dict[str, float]]:
    """Parser of a file with one number."""

    def parser(text: str) -> dict[str, float]:
        stripped = text.strip()
        return {field: int(stripped) * factor} if _is_count(stripped) else {}

    return parser


def _io_stat(text: str) -> dict[str, float]:
    """v2: `MAJOR:MINOR rbytes=N wbytes=N …` per device; a device that did nothing may stand alone on its line."""
    read_bytes = written_bytes = 0
    for line in text.splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition("=")
            if _is_count(value):
                read_bytes += int(value) if key == "rbytes" else 0
                written_bytes += int(value) if key == "wbytes" else 0
    return {"io_read_bytes": float(read_bytes), "io_write_bytes": float(written_bytes)}


def _blkio(text: str) -> dict[str, float]:
    """v1: `MAJOR:MINOR Read N` and `… Write N` per device, then `Total N`."""
    read_bytes = written_bytes = 0
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and _is_count(words[2]):
            read_bytes += int(words[2]) if words[1] == "Read" else 0
            written_bytes += int(words[2]) if words[1] == "Write" else 0
    return {"io_read_bytes": float(read_bytes), "io_write_bytes": float(written_bytes)}


_PARSERS: dict[str, Callable[[str], dict[str, float]]] = {
    "memory.events": _picked(("oom_kills", "oom_kill", 1.0)),
    "memory.oom_control": _picked(("oom_kills", "oom_kill", 1.0)),
    "memory.peak": _single("peak_memory_bytes", 1.0),
    "memory.max_usage_in_bytes": _single("peak_memory_bytes", 1.0),
    "cpu.stat": _picked(
        ("cpu_user_seconds", "user_usec", 1e-6),
        ("cpu_system_seconds", "system_usec", 1e-6),
        ("cpu_throttled", "nr_throttled", 1.0),
    ),
    "cpuacct.usage_user": _single("cpu_user_seconds", 1e-9),
    "cpuacct.usage_sys": _single("cpu_system_seconds", 1e-9),
    "pids.peak": _single("peak_pids", 1.0),
    "pids.events": _picked(("pids_denied", "max", 1.0)),
    "io.stat": _io_stat,
    "blkio.throttle.io_service_bytes_recursive": _blkio,
}
