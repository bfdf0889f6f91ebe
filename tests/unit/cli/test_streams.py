import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandboxd.cli import streams
from sandboxd.cli.mistake import Mistake


def test_write_waits_for_a_slow_reader_of_a_non_blocking_pipe() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    data = os.urandom(1 << 20)
    read: list[bytes] = []

    def drain() -> None:
        while piece := os.read(reader, 1 << 16):
            read.append(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    streams.write(writer, data)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert b"".join(read) == data


def test_write_without_a_reader_is_a_broken_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        streams.write(writer, b"x")
    os.close(writer)


def python(code: str, stdin: bytes | None = b"") -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-c", f"import os, signal, sys\nfrom sandboxd.cli import streams\n{code}"]
    return subprocess.run(program, input=stdin, capture_output=True, timeout=30, check=False)


def test_signal_ends_the_process_wherever_it_stands() -> None:
    code = "streams.exit_on_signals()\ntry: os.kill(os.getpid(), signal.SIGTERM)\nfinally: print('never')"
    done = python(code)
    assert (done.returncode, done.stdout) == (143, b"")


def test_signal_that_was_ignored_stays_ignored() -> None:
    code = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "streams.exit_on_signals()\nos.kill(os.getpid(), signal.SIGINT)\nprint('on')"
    )
    assert python(code).stdout == b"on\n"


def test_closed_stdin_is_a_mistake_that_names_a_way_out() -> None:
    done = python("os.close(0)\ntry: streams.read_stdin()\nexcept streams.Mistake as m: print(m)")
    assert b"/dev/null" in done.stdout


def test_source_that_is_not_utf8_is_refused() -> None:
    done = python("try: streams.read_source()\nexcept streams.Mistake as m: print(m)", b"ok\xff")
    assert b"not UTF-8 at byte 2" in done.stdout


def test_terminal_is_not_read() -> None:
    master, terminal = os.openpty()
    before = os.dup(streams.STDIN)
    os.dup2(terminal, streams.STDIN)
    try:
        assert streams.read_stdin() == b""
    finally:
        os.dup2(before, streams.STDIN)
        for fd in (before, master, terminal):
            os.close(fd)


def test_input_over_the_cap_is_refused(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(streams.MAX_STDIN_BYTES + 1)
    before, source = os.dup(0), os.open(big, os.O_RDONLY)
    os.dup2(source, 0)
    try:
        with pytest.raises(Mistake, match="the most a request carries"):
            streams.read_stdin()
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(source)
