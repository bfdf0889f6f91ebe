"""Starts a real daemon (`sandboxd serve`) for tests: as root, as an ordinary user, or as one with subordinate ids.

Never touches the machine's own state: directories are temporary, and the user of the last mode exists only in a private
mount namespace. Used by the fixtures of `conftest` and by tests that end processes of a daemon of their own.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sandboxd.client import Client, SandboxdError
from tests import reachable

CHECKOUT = Path(__file__).resolve().parent.parent
START_SECONDS = 300.0  # under emulation everything is slow
STOP_SECONDS = 60.0
ORDINARY_UID = 64321  # nobody's: not in the passwd file, no subordinate ids
SUBUID_USER, SUBUID_UID, SUBUID_FIRST = "sandboxd-test", 64322, 1_500_000_000
CGROUP_ROOT = Path("/sys/fs/cgroup")


class Mode(StrEnum):
    ROOT = "root"
    ROOTLESS = "rootless"
    ROOTLESS_SUBUID = "rootless-subuid"

    @property
    def uid(self) -> int:
        if os.geteuid() != 0:
            return os.geteuid()
        return {Mode.ROOT: 0, Mode.ROOTLESS: ORDINARY_UID, Mode.ROOTLESS_SUBUID: SUBUID_UID}[self]


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon that answers. `process` is the spawner, parent of everything else.

    `address` is for a client in this process; `socket` is where the daemon itself listens. They differ where we are
    root and the daemon is not, see `forward`.
    """

    mode: Mode
    address: str
    socket: Path
    config: Path
    state_dir: Path
    log: Path
    process: subprocess.Popen[bytes]

    def client(self) -> Client:
        return Client(self.address)

    def journal(self) -> list[dict[str, object]]:
        """Every record of the audit journal so far, oldest first."""
        segments = sorted((self.state_dir / "journal").rglob("*.jsonl"))
        return [json.loads(line) for segment in segments for line in segment.read_bytes().splitlines()]

    def records_of(self, execution_id: str) -> list[dict[str, object]]:
        """Those of that execution alone, oldest first: where one daemon serves many tests, its journal is long."""
        segments = sorted((self.state_dir / "journal").rglob("*.jsonl"))
        own = execution_id.encode()
        lines = (line for segment in segments for line in segment.read_bytes().splitlines() if own in line)
        return [record for line in lines if (record := json.loads(line))["ids"].get("execution_id") == execution_id]

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@contextlib.contextmanager
def start_daemon(mode: Mode, settings: str = "", within: Sequence[str] = ()) -> Iterator[RunningDaemon]:
    """A daemon of its own for one test; `settings` are further lines for its configuration file (YAML), with
    `@RUN@` for the directory of its socket.

    `within` stands before its command line, such as `container.prefix`.
    """
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-test-", dir="/tmp"))
    try:
        with _start_in(directory, mode, settings, within) as daemon:
            yield daemon
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def _start_in(directory: Path, mode: Mode, settings: str, within: Sequence[str]) -> Iterator[RunningDaemon]:
    directory.chmod(0o711)
    home = directory / "home"
    home.mkdir(mode=0o700)
    socket, state, config, log = home / "run" / "s.sock", home / "state", home / "config.yaml", directory / "log"
    socket.parent.mkdir(mode=0o700)
    config.write_text(configuration(socket, state) + settings.replace("@RUN@", str(socket.parent)))
    if os.geteuid() == 0:
        for path in (home, socket.parent, config):
            os.chown(path, mode.uid, mode.uid)
    with _delegated_cgroup(mode) as cgroup, log.open("wb") as sink:
        process = subprocess.Popen(
            [
                *_entry(mode, directory, cgroup),
                *within,
                *(sys.executable, "-m", "sandboxd", "serve", "--config", str(config)),
            ],
            cwd=CHECKOUT,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            with _way_in(mode, socket) as address:
                daemon = RunningDaemon(mode, f"unix:{address}", socket, config, state, log, process)
                wait_until_it_answers(daemon)
                yield daemon
        finally:
            stop(process, log)


@contextlib.contextmanager
def _way_in(mode: Mode, socket: Path) -> Iterator[Path]:
    """The socket that a client of this process may use: the daemon's own, or one that its user forwards to it."""
    if mode.uid == os.geteuid():
        yield socket
        return
    outer = socket.with_name("forward.sock")
    forward = [*_as_user(mode), sys.executable, "-m", "tests.forward", str(outer), str(socket)]
    entry = reachable.prefix(CHECKOUT)
    with subprocess.Popen([*entry, *forward], cwd=CHECKOUT, env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.PIPE):
        yield outer


def environment(home: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "LANG": "C.UTF-8",
    }


def configuration(socket: Path, state_dir: Path) -> str:
    return f"listen:\n  - unix: {socket}\nstate_dir: {state_dir}\n"


def wait_until_it_answers(daemon: RunningDaemon) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (status := daemon.process.poll()) is not None:
            raise AssertionError(f"sandboxd serve ended with {status} before it answered:\n{_tail(daemon.log)}")
        if not daemon.socket.exists():  # a look is cheap, a client is not, and the daemon needs the CPU now
            time.sleep(0.05)
            continue
        try:
            with daemon.client() as client:
                client.capabilities()
        except SandboxdError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"sandboxd serve does not answer after {START_SECONDS} s:\n{_tail(daemon.log)}")


def stop(process: subprocess.Popen[bytes], log: Path) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"sandboxd serve did not drain in {STOP_SECONDS} s:\n{_tail(log)}") from None


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="backslashreplace").splitlines()[-40:])


def _entry(mode: Mode, directory: Path, cgroup: Path | None) -> list[str]:
    """What stands before the command line, so that it runs as that mode's user and can read this checkout."""
    entry = reachable.prefix(CHECKOUT)
    if cgroup is not None:
        # What an earlier life delegated keeps processes out on v2; a service manager gives a new life a new cgroup.
        # The deepest first, which `find -depth` does not promise for a file beside the directories.
        each = 'while read -r _ f; do for c in $(cat "$f"); do echo "-$c" >"$f"; done; done'
        free = f'find "$0" -name cgroup.subtree_control -printf "%d %p\\n" | sort -rn | {each}'
        entry += ["/bin/sh", "-c", f'{free}; echo $$ >"$0/cgroup.procs" && exec "$@"', str(cgroup)]
    if os.geteuid() != 0 or mode is Mode.ROOT:
        return entry
    if mode is Mode.ROOTLESS_SUBUID:
        bind = 'for f in passwd group subuid subgid; do mount --bind "$0/$f" "/etc/$f"; done; exec "$@"'
        entry += ["/usr/bin/unshare", "--mount", "--propagation", "private"]
        entry += ["/bin/sh", "-ec", bind, str(_accounts(directory / "etc", mode.uid))]
    return entry + _as_user(mode)


def _as_user(mode: Mode) -> list[str]:
    return ["/usr/bin/setpriv", f"--reuid={mode.uid}", f"--regid={mode.uid}", "--clear-groups"]


def _accounts(etc: Path, uid: int) -> Path:
    """Copies of the account files with one more user, who has a range of subordinate ids."""
    etc.mkdir(mode=0o755)
    added = {
        "passwd": f"{SUBUID_USER}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n",
        "group": f"{SUBUID_USER}:x:{uid}:\n",
        "subuid": f"{SUBUID_USER}:{SUBUID_FIRST}:65536\n",
        "subgid": f"{SUBUID_USER}:{SUBUID_FIRST}:65536\n",
    }
    for name, line in added.items():
        original = Path("/etc", name)
        original.touch()  # a mount needs something to cover
        (etc / name).write_text(original.read_text() + line)
    return etc


@contextlib.contextmanager
def _delegated_cgroup(mode: Mode) -> Iterator[Path | None]:
    """On cgroup v2, a group as a service manager delegates it (`Delegate=yes`); elsewhere nothing."""
    controllers = CGROUP_ROOT / "cgroup.controllers"
    if os.geteuid() != 0 or not controllers.exists():
        yield None
        return
    wanted = [name for name in controllers.read_text().split() if name in ("cpu", "io", "memory", "pids")]
    (CGROUP_ROOT / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
    group = Path(tempfile.mkdtemp(prefix="sandboxd-test-", dir=CGROUP_ROOT))
    group.chmod(0o755)
    for path in (group, *(group / name for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"))):
        os.chown(path, mode.uid, mode.uid)
    try:
        yield group
    finally:
        (group / "cgroup.kill").write_text("1")
        for nested in sorted(group.rglob("*/"), reverse=True):
            nested.rmdir()
        group.rmdir()
