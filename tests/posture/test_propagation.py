"""What is mounted on the host later does not appear in a sandbox, also where the host's mounts are shared (systemd)."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.daemon import Mode, start_daemon
from tests.skips import need_root


@pytest.fixture
def shared_host() -> Iterator[list[str]]:
    """A mount namespace like that of a systemd host, kept alive; what to put before a command line to be in it."""
    need_root()
    keep = ["/usr/bin/unshare", "--mount", "--propagation", "shared", "/bin/sh", "-c", "echo ready; exec cat"]
    with subprocess.Popen(keep, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n"
        yield ["/usr/bin/nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt"]
        keeper.terminate()


def test_no_mount_of_a_sandbox_follows_the_host(shared_host: list[str]) -> None:
    control = subprocess.run([*shared_host, "cat", "/proc/self/mountinfo"], capture_output=True, text=True, check=True)
    assert " shared:" in control.stdout
    with start_daemon(Mode.ROOT, within=shared_host) as daemon, daemon.client() as client:
        seen = client.run(["/bin/cat", "/proc/self/mountinfo"]).stdout.decode()
    assert " /workspace " in seen
    assert {field for line in seen.splitlines() for field in line.split(" - ")[0].split()[6:]} == set()
