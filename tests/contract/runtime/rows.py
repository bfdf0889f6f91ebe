"""One row per runtime: how a test gets a connected one. A further runtime joins the contract by adding its row here."""

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from sandboxd.model import Limits
from sandboxd.profile.load import load_profiles
from sandboxd.profile.resolve import ResolvedProfile
from sandboxd.runtime.base import Runtime
from sandboxd.runtime.process import ProcessRuntime
from tests import reachable
from tests.contract.runtime.script import play
from tests.daemon import CHECKOUT, ORDINARY_UID
from tests.fakes.runtime import FakeRuntime
from tests.skips import need_root

PROFILE = "default"
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Row:
    """`confines`: it is a real one, so what needs a kernel is tested too."""

    name: str
    connect: Callable[[], AbstractAsyncContextManager[Runtime]]
    confines: bool


@functools.cache
def profile() -> ResolvedProfile:
    """Once: loading compiles and proves every filter, which under emulation takes ten seconds."""
    return load_profiles([CHECKOUT / "profiles"]).get(PROFILE)


def digest() -> str:
    return profile().digest


def limits() -> Limits:
    return profile().limits


@contextlib.asynccontextmanager
async def fake() -> AsyncIterator[Runtime]:
    runtime = FakeRuntime(script=play)
    yield runtime
    assert not runtime.alive, "a sandbox was left alive"


@contextlib.asynccontextmanager
async def process_as_root() -> AsyncIterator[Runtime]:
    need_root()
    async with _process([]) as runtime:
        yield runtime


@contextlib.asynccontextmanager
async def process_rootless() -> AsyncIterator[Runtime]:
    user = ["/usr/bin/setpriv", f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups"]
    async with _process(user if os.geteuid() == 0 else []) as runtime:
        yield runtime


ROWS = (
    Row("fake", fake, confines=False),
    Row("process-root", process_as_root, confines=True),
    Row("process-rootless", process_rootless, confines=True),
)


@contextlib.asynccontextmanager
async def _process(user: list[str]) -> AsyncIterator[Runtime]:
    """A real spawner whose daemon hands its socket to this process."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-contract-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        owned = directory / "home"
        owned.mkdir(mode=0o700)
        if user:
            shutil.chown(owned, ORDINARY_UID, ORDINARY_UID)
        with _spawner(user, directory, owned) as sock:
            yield await ProcessRuntime.connect(sock)


@contextlib.contextmanager
def _spawner(user: list[str], directory: Path, owned: Path) -> Iterator[socket.socket]:
    meeting = directory / "meeting.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(meeting))
        listener.listen()
        listener.settimeout(120)
        meeting.chmod(0o666)
        argv = [sys.executable, str(HERE / "bridged_spawner.py"), str(meeting)]
        argv += ["--state-dir", str(owned / "state"), "--runtime-dir", str(owned / "run")]
        argv += ["--profile-path", str(CHECKOUT / "profiles")]
        process = subprocess.Popen([*reachable.prefix(CHECKOUT), *user, *argv], cwd=CHECKOUT, stdin=subprocess.DEVNULL)
        try:
            connection, _ = listener.accept()
            with connection:
                _, (fd,), _, _ = socket.recv_fds(connection, 1, 1)
                yield socket.socket(fileno=fd)
        finally:
            # Twice: the first asks the daemon to drain, and there is none.
            for _ in range(2):
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2)
            process.kill()
            process.wait()
