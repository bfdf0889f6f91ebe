"""Starts a real OPA server for tests, on a unix socket or on loopback. It asks nobody for updates."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.skips import Lacks, because

START_SECONDS = 120.0
# As the shipped bundle is loaded: its tests are no part of it.
QUIET = ("--skip-version-check", "--log-level=error", "--ignore=*_test.rego")


def need_opa() -> str:
    """The program's path; skipped where it is missing, which fails in CI."""
    path = os.environ.get("SANDBOXD_TEST_OPA") or shutil.which("opa")
    if path is None:
        pytest.skip(because(Lacks.PROGRAM, "'opa'; build it with .ci/build-opa and name it in SANDBOXD_TEST_OPA"))
    return path


@dataclass(frozen=True, slots=True)
class RunningOpa:
    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def opa_on_socket(sources: Sequence[Path], *arguments: str) -> Iterator[RunningOpa]:
    """Each source is loaded as a bundle. Further arguments of `opa run` as they are."""
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-opa-", dir="/tmp"))
    path = directory / "opa.sock"
    try:
        with _running(f"unix://{path}", sources, arguments, (socket.AF_UNIX, str(path))) as process:
            yield RunningOpa(f"unix://{path}", process)
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def opa_on_loopback(scheme: str, sources: Sequence[Path], *arguments: str, port: int = 0) -> Iterator[RunningOpa]:
    """`port` 0 takes a free one."""
    port = port or free_port()
    with _running(f"127.0.0.1:{port}", sources, arguments, (socket.AF_INET, ("127.0.0.1", port))) as process:
        yield RunningOpa(f"{scheme}://127.0.0.1:{port}", process)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _running(
    address: str, sources: Sequence[Path], arguments: Sequence[str], at: tuple[socket.AddressFamily, object]
) -> Iterator[subprocess.Popen[bytes]]:
    bundles = [part for source in sources for part in ("--bundle", str(source))]
    command = [need_opa(), "run", "--server", "--addr", address, *QUIET, *bundles, *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"HOME": "/nonexistent"},
    )
    try:
        _wait(process, *at)
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait(process: subprocess.Popen[bytes], family: socket.AddressFamily, address: object) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"opa ended with {process.returncode}: {process.communicate()[0].decode()}")
        with contextlib.suppress(OSError), socket.socket(family) as sock:
            sock.connect(address)  # type: ignore[arg-type]  # of that family
            return
        time.sleep(0.02)
    raise AssertionError(f"opa did not listen within {START_SECONDS} s")
