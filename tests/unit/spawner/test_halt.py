"""Halting real processes, in a pid namespace of their own since the signal goes to all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.spawner import halt
from tests.skips import need_root

ROOT = Path(__file__).resolve().parents[3]
PRELUDE = """
import os, signal, subprocess, sys, time
from sandboxd.spawner.halt import Halted
def state(pid): return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
"""


def inside(script: str) -> str:
    """What a Python program prints that is PID 1 of a new pid namespace with a proc of its own."""
    need_root()
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [*unshare, sys.executable, "-c", PRELUDE + script]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=ROOT).stdout


def test_all_stand_still_and_those_go_on_that_were_not_stopped_before() -> None:
    told = inside(
        "one = subprocess.Popen(['sh', '-c', 'while :; do :; done'])\n"
        "two = subprocess.Popen(['sleep', '100'])\n"
        "os.kill(two.pid, signal.SIGSTOP)\n"
        "while state(two.pid) != 'T': time.sleep(0.01)\n"
        "halted = Halted()\n"
        "print(state(one.pid), state(two.pid), halted.evaded())\n"
        "halted.release()\n"
        "while state(one.pid) != 'R': time.sleep(0.01)\n"
        "print(state(two.pid))\n"
    )
    assert told.split() == ["T", "T", "False", "T"]


def test_who_forks_without_end_stands_still_too() -> None:
    told = inside(
        "bomb = subprocess.Popen(['sh', '-c', 'f() { while :; do (:) & wait; done; }; f & f & f & f'])\n"
        "time.sleep(0.2)\n"
        "halted = Halted()\n"
        "time.sleep(0.1)\n"
        "print(halted.evaded())\n"
    )
    assert told.split() == ["False"]


def test_who_was_continued_has_evaded() -> None:
    told = inside(
        "one = subprocess.Popen(['sleep', '100'])\n"
        "halted = Halted()\n"
        "print(halted.evaded())\n"
        "os.kill(one.pid, signal.SIGCONT)\n"
        "while state(one.pid) == 'T': time.sleep(0.01)\n"
        "print(halted.evaded(), halted.evaded())\n"
    )
    assert told.split() == ["False", "True", "False"]


def test_what_never_stands_still_goes_on_and_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halt, "_stop_all", lambda: None)
    monkeypatch.setattr(halt, "_pids", lambda: [os.getpid()])
    monkeypatch.setattr(halt, "_PAUSE_SECONDS", 0.0)
    before = signal.signal(signal.SIGCONT, lambda *_: None)
    try:
        with pytest.raises(OSError, match="stand still") as failure:
            halt.Halted()
    finally:
        signal.signal(signal.SIGCONT, before)
    assert failure.value.errno == errno.ETIMEDOUT
