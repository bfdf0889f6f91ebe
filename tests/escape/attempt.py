"""What one attempt is, how it ended, and its control: the same probe unconfined, where it must work.

The control runs in throw-away namespaces that keep root's rights, so that an attempt which works hurts nobody.
Never judges by time. Used by every test of this folder.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import pytest

from tests.skips import Lacks, because

PROBES = Path(__file__).parent / "probes"
PYTHON = "/usr/bin/python3"

# What a kernel answers that was built without the thing, or a host that has no such thing: not a matter of rights.
LACKING = frozenset({"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENODEV", "ENXIO", "ENOPROTOOPT"})


@dataclass(frozen=True, slots=True)
class Ended:
    """How a probe ended: `outcome` is worked, errno or refused from its last line, or killed by a signal."""

    outcome: str
    code: str
    detail: str
    call: str = ""  # the system call that failed, where the probe knows, and in which process of the sandbox
    pid: int = 0

    def __str__(self) -> str:
        return " ".join(part for part in (self.outcome, self.code, self.detail) if part)

    @property
    def answer(self) -> str:
        """One word to compare with a table: worked, refused, an errno's or a signal's name."""
        return self.outcome if self.outcome in ("worked", "refused") else self.code


@dataclass(frozen=True, slots=True)
class Denied:
    """The event `syscall.denied`, or of a call that kills the signal in `execution.ended`."""

    call: str = ""  # where the probe does not say which one it was
    errno: str = ""  # where the attempt went on and ended otherwise
    unless: tuple[str, ...] = ()  # ends that other layers make of it, in some modes


@dataclass(frozen=True, slots=True)
class Asked:
    """The event `process.exec_decided` of an image that ends so. Unless the filter refused what comes before."""

    image: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """No event, and why there is none to be had."""

    why: str


NOT_THERE = Unseen("the view has nothing there, so there is nothing that anybody refused")
OF_FILES = Unseen("modes, mounts and Landlock are the kernel's own answers to an allowed call, and tell nobody")
OF_PROCESSES = Unseen("credentials and pid namespaces are the kernel's own answers to an allowed call, and tell nobody")
OF_NETWORK = Unseen("its own network namespace has no way there: the call is allowed, and nobody refuses it")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of a table: what is tried, each answer that counts as stopped, and what the journal must have of it."""

    row: str
    probe: str
    must: tuple[str, ...]
    argv: tuple[str, ...] = ()
    lacking: frozenset[str] = field(default=LACKING)  # answers of the control that mean: not on this host
    trace: Denied | Asked | Unseen = field(default=Denied())

    @property
    def name(self) -> str:
        return "-".join((self.row, self.probe, *self.argv)).replace("/", "_")


def unseen(why: Unseen, *rows: Attempt) -> tuple[Attempt, ...]:
    """Rows of which no event can be had."""
    return tuple(replace(row, trace=why) for row in rows)


def attempts(*rows: Attempt) -> pytest.MarkDecorator:
    """Parametrizes a test over the rows of a table; the id shows which."""
    return pytest.mark.parametrize("attempt", rows, ids=[row.name for row in rows])


def ended(stdout: bytes, exit_code: int | None, signum: int | None, stderr: bytes = b"") -> Ended:
    """Reads a probe's end from its output and status; a probe that says nothing and was not killed is a broken test."""
    if signum is None and exit_code is not None and exit_code > 128:
        signum = exit_code - 128
    if signum:
        return Ended("killed", signal.Signals(signum).name, "")
    for line in reversed(stdout.splitlines()):
        if line.startswith(b'{"outcome"'):
            report = json.loads(line)
            return Ended(report["outcome"], report["errno"], report["detail"], report["call"], report["pid"])
    raise AssertionError(f"the probe reported nothing; exit code {exit_code}, stdout {stdout!r}, stderr {stderr!r}")


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a probe, the same inside and outside."""
    return [PYTHON, "-m", f"probes.{module}", *arguments]


class Network(StrEnum):
    """Where a control lives: attempts on a listener of the host must be able to reach it."""

    OWN = "own"
    HOST = "host"


def unconfined(directory: Path, module: str, arguments: tuple[str, ...], network: Network = Network.OWN) -> Ended:
    """The control: the probe in fresh namespaces (never the host's), as root of the host where the tests are root."""
    shutil.copytree(PROBES, directory / "probes", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    namespaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc"]
    if network is Network.OWN:
        namespaces.append("--net")
    if os.geteuid() != 0:
        namespaces = ["--user", "--map-root-user", *namespaces]
    # A shell stays as PID 1, so that attempts on PID 1 are not attempts on the probe itself.
    script = 'mount -t tmpfs control /tmp; cd "$1"; shift; sleep 1000 & "$@"; exit $?'
    run = subprocess.run(
        ["unshare", *namespaces, "sh", "-c", script, "sh", str(directory), *command(module, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    signum = -run.returncode if run.returncode < 0 else None
    return ended(run.stdout, run.returncode, signum, run.stderr)


_controls: dict[tuple[str, str, tuple[str, ...]], Ended] = {}


def same_control(directory: Path, module: str, attempt: Attempt) -> Ended:
    """As `unconfined`, once for all modes: for attempts on what the host has, whichever daemon runs beside it."""
    key = (module, attempt.probe, attempt.argv)
    if key not in _controls:
        _controls[key] = unconfined(directory, module, (attempt.probe, *attempt.argv))
    return _controls[key]


def check_control(attempt: Attempt, control: Ended) -> None:
    """The control must work; where this host lacks what is attacked, or its root is no full root, the test skips."""
    if control.outcome == "worked":
        return
    if control.code in attempt.lacking:
        pytest.skip(because(Lacks.CONTROL, f"{attempt.name} ended {control} unconfined"))
    if control.code in ("EPERM", "EACCES") and not full_root():
        pytest.skip(because(Lacks.ROOT, f"{attempt.name} ended {control} unconfined"))
    pytest.fail(f"{attempt.name}: the control must work, else the test proves nothing; it ended: {control}")


def full_root() -> bool:
    """Whether the tests run as root with every capability the kernel has."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16) == (1 << (last + 1)) - 1
    return False
