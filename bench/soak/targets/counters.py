"""The kernel's counter files: first line the file's name, then its content. Never an exception, never below zero."""

import os

from bench.soak.target import Broken, Target
from sandboxd.runtime.counters import usage
from sandboxd.spawner import counters

LETTERS = str.maketrans("123", "bug")
HALF = (("cpu_user_seconds", 0.5), ("io_read_bytes", 1.0), ("peak_pids", 9.0))
FILES = (
    (b"memory.events", b"low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
    (b"memory.oom_control", b"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    (b"memory.peak", b"1048576\n"),
    (b"cpu.stat", b"usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 0\nnr_throttled 4\n"),
    (b"cpuacct.usage_user", b"12345\n"),
    (b"pids.peak", b"7\n"),
    (b"pids.events", b"max 2\n"),
    (b"io.stat", b"254:0 rbytes=1 wbytes=2 rios=1 wios=1\n8:0\n"),
    (b"blkio.throttle.io_service_bytes_recursive", b"254:0 Read 1\n254:0 Write 2\nTotal 3\n"),
)
MAKING = ("counters._picked", "counters._single")  # parsers, once


def run(data: bytes) -> object:
    name, _, content = data.partition(b"\n")
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, content)
        numbers = counters.read({name.decode("ascii", "replace"): fd})
    finally:
        os.close(fd)
    for since in (numbers, counters.since(numbers, numbers), counters.since(HALF, numbers)):
        if any(value < 0 for _, value in since):
            raise Broken(f"{since!r} is below zero")
        usage(since)
    # Letters in place of digits, since a number is all that comes out.
    return str(int(numbers[-1][1])).translate(LETTERS) if numbers else None


def target() -> Target:
    seeds = tuple(name + b"\n" + content for name, content in FILES)
    words = (*(name for name, _ in FILES), b"9" * 400, b"max", b"-1", b"=", b" ")
    return Target("counters", ("sandboxd.spawner.counters",), run, (), seeds, words, max_bytes=8192, outside=MAKING)
