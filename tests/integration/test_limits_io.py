"""The bandwidth limit in a living sandbox: the kernel has the rule for the disk, and what the sandbox reads meets it.

Shown by the files of the sandbox's own cgroup, never by how long a read took.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sandboxd.client import Chunk, Client
from sandboxd.spawner.cgroup_files import block_devices
from tests import proc
from tests.daemon import CGROUP_ROOT, CHECKOUT, Mode, RunningDaemon, start_daemon
from tests.skips import need_kernel, need_root

pytestmark = pytest.mark.root

RATE = 4 << 20
PROFILE = f"""\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata:
  name: throttled
  labels: {{sandboxd.io/reviewed: "true"}}
spec:
  description: Reads from disks at a bounded rate
  extends: default
  limits: {{io_read_bytes_per_second: {RATE}}}
  enforcement: {{guarantees: {{limit.io: best_effort}}}}
"""
FILE = Path("/usr/bin/python3").resolve()  # on the host's own disk, and every profile shows it
# Past the page cache, from which a read reaches no disk and so no throttle. Says after each piece how much it has read.
SOURCE = f"""
import mmap, os, sys
disk = os.open({str(FILE)!r}, os.O_RDONLY | os.O_DIRECT)
piece = mmap.mmap(-1, 65536)
read = 0
while len(sys.argv) < 3 or read < int(sys.argv[2]):
    read += os.preadv(disk, [piece], 0)
    print(read, flush=True)
"""
READS = ("/usr/bin/python3", "-c", SOURCE)


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """Of root, whose sandboxes have a cgroup, with a profile that throttles."""
    need_root()
    with tempfile.TemporaryDirectory(prefix="sandboxd-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        Path(name, "throttled.yaml").write_text(PROFILE)
        paths = f"profiles: {{paths: [{CHECKOUT / 'profiles'}, {name}]}}\n"
        with start_daemon(Mode.ROOT, paths) as running:
            yield running


@pytest.fixture
def disk() -> str:
    """`major:minor` of the whole disk that the file is on."""
    device = FILE.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    whole = Path("/sys/dev/block", number).resolve()
    if (whole / "partition").exists():
        number = (whole.parent / "dev").read_text().strip()
    need_kernel(f"{str(FILE)!r} on a disk that a cgroup can throttle", present=number in block_devices())
    return number


def _cgroup(pid: int) -> Path:
    """Where the kernel counts what this process reads from disks."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    v1 = [path for _, controllers, path in lines if "blkio" in controllers.split(",")]
    v2 = [path for number, _, path in lines if number == "0"]
    return Path(f"{CGROUP_ROOT}/blkio{v1[0]}") if v1 else Path(f"{CGROUP_ROOT}{v2[0]}")


def _rates(cgroup: Path) -> dict[str, str]:
    """What may be read per second, by disk, as the kernel has it."""
    name = "io.max" if (cgroup / "io.max").exists() else "blkio.throttle.read_bps_device"
    pairs = (line.split()[:2] for line in (cgroup / name).read_text().splitlines())
    return {device: rate.removeprefix("rbps=") for device, rate in pairs}


def _throttled_bytes(cgroup: Path, disk: str) -> int:
    """What the throttle has let through to be read from that disk."""
    v2 = (cgroup / "io.stat").exists()
    lines = (cgroup / ("io.stat" if v2 else "blkio.throttle.io_service_bytes")).read_text().splitlines()
    read = f"{disk} rbytes=" if v2 else f"{disk} Read "
    return sum(int(line.removeprefix(read).split()[0]) for line in lines if line.startswith(read))


def _program(daemon: RunningDaemon, marker: str) -> int:
    (program,) = proc.with_argument(daemon.process.pid, marker)
    return program.pid


def test_reads_of_a_sandbox_meet_the_rule_for_their_disk(daemon: RunningDaemon, client: Client, disk: str) -> None:
    with closing(client.execute([*READS, "throttled-reads"], profile="throttled")) as run:
        told = (int(event.data.split()[-1]) for event in run if isinstance(event, Chunk))
        first = next(told)
        cgroup = _cgroup(_program(daemon, "throttled-reads"))
        assert _rates(cgroup) == {number: str(RATE) for number in block_devices()}
        before = _throttled_bytes(cgroup, disk)
        assert before >= first
        later = next(read for read in told if read > before)
        assert _throttled_bytes(cgroup, disk) >= later


def test_control_without_the_limit_no_disk_has_a_rule(daemon: RunningDaemon, client: Client, disk: str) -> None:
    with closing(client.execute([*READS, "free-reads"])) as run:
        next(event for event in run if isinstance(event, Chunk))
        assert _rates(_cgroup(_program(daemon, "free-reads"))) == {}


def test_bytes_read_from_disks_are_told_with_the_result(client: Client, disk: str) -> None:
    result = client.run([*READS, "bounded", "1048576"], profile="throttled")
    assert result.usage.io_read_bytes is not None
    assert result.usage.io_read_bytes >= int(result.stdout.split()[-1]) >= 1 << 20
