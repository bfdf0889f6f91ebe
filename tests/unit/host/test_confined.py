"""A worker of these tests: attempts what it is asked to, before it gave up its system calls and afterwards."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.policy.rego_process import Answer, Status, Worker

SCRIPT = """
import os, socket, sys, threading
from sandboxd.host.confined import ANSWER, FAILED, LOAD, give_up_system_calls, serve

def forks():
    if os.fork() == 0:
        os._exit(0)
    os.wait()

def reaches_the_daemon():
    os.kill(os.getppid(), 0)

def starts_a_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

ATTEMPTS = {
    "reads a file": lambda: open("/etc/hostname").read(),
    "lists a directory": lambda: os.listdir("/"),
    "looks for a file": lambda: os.stat("/etc/passwd"),
    "opens a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "opens a unix socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    "makes a memory file": lambda: os.memfd_create("x"),
    "makes a pipe": os.pipe,
    "duplicates a descriptor": lambda: os.dup(0),
    "changes where it is": lambda: os.chdir("/"),
    "forks": forks,
    "starts a program": lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]),
    "signals the daemon": reaches_the_daemon,
    "starts a thread": starts_a_thread,
}

def answer(kind, body):
    if kind == LOAD:
        give_up_system_calls()
        return ANSWER, ""
    try:
        ATTEMPTS[body.decode()]()
    except (OSError, RuntimeError) as error:
        return FAILED, f"{type(error).__name__}: {error}"
    return ANSWER, "done"

serve(int(sys.argv[1]), int(sys.argv[2]), answer)
"""
ATTEMPTS = re.findall(r'^    "([^"]+)":', SCRIPT, re.MULTILINE)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    started = Worker.start(script)
    yield started
    started.kill()


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_worker_that_gave_up_its_system_calls_cannot(worker: Worker, attempt: str) -> None:
    control = worker.try_out(attempt.encode())
    assert control == Answer(Status.ANSWER, "done")
    worker.load(b"")
    answer = worker.try_out(attempt.encode())
    assert answer.status is Status.FAILED
    assert "Operation not permitted" in answer.text or "can't start new thread" in answer.text


def test_a_worker_cannot_raise_its_limits_or_be_looked_into(worker: Worker) -> None:
    worker.try_out(b"lists a directory")
    process = Path(f"/proc/{worker.pid}")
    limits = dict(re.findall(r"^Max (.+?)  +(\d+ +\d+)", (process / "limits").read_text(), re.MULTILINE))
    assert limits["file size"].split() == limits["core file size"].split() == ["0", "0"]
    assert limits["open files"].split() == ["16", "16"]
    soft, hard = limits["address space"].split()
    assert soft == hard
    assert (process / "environ").stat().st_uid == 0  # of root, as for every process that is not dumpable
    assert "NoNewPrivs:\t1" in (process / "status").read_text()


def test_a_worker_whose_parent_is_gone_ends_at_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with socket.socketpair()[0] as unused:
        ended = subprocess.run([sys.executable, "-I", str(script), str(unused.fileno()), "1"], timeout=60)
    assert ended.returncode == 1


def test_a_worker_ends_when_the_daemon_hangs_up(worker: Worker) -> None:
    worker.try_out(b"lists a directory")
    worker._sock.shutdown(socket.SHUT_RDWR)
    assert worker._process.wait(timeout=60) == 0
