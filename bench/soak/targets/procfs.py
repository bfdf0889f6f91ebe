"""What the kernel tells of mounts, cgroups and ids, with names in it that any user of the host may have chosen.

Divided by NUL: mountinfo, /proc/self/cgroup, /etc/subuid. A line of mountinfo must come out as what its fields say.
"""

import os
import tempfile
from pathlib import Path

from bench.soak.target import Broken, Target
from sandboxd.spawner import cgroup, ids

KIND = " - cgroup"
# What tries the places out, and what deals in ids.
ACTS = (
    *(f"cgroup.{name}" for name in ("make_writable", "detect", "_detect_v1", "_v1_directory", "_not_writable")),
    *(f"cgroup.{name}" for name in ("_detect_v2", "_v2_parent", "_is_real_root", "_opened_up")),
    *(f"ids.IdBlock.{name}" for name in ("payload_uid", "init_inside", "uid_map", "gid_map", "_map")),
    *(f"ids.IdPool.{name}" for name in ("__init__", "take", "give_back")),
    *(f"ids.{name}" for name in ("enter_user_namespace", "_unshare_and_map")),
)


def target() -> Target:
    kept = tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm")
    place = Path(kept.name, "file")

    def run(data: bytes) -> object:
        _ = kept  # lives as long as this function
        mountinfo, _, rest = data.partition(b"\0")
        own, _, subuid = rest.partition(b"\0")
        place.write_bytes(mountinfo)
        lines = cgroup._lines(place)
        if [os.fsencode(line) for line in lines] != [line for line in mountinfo.split(b"\n") if line]:
            raise Broken("a byte was lost")
        hierarchies = [line for line in lines if KIND in line]
        points = cgroup._read_only(lines)
        v1, v2 = cgroup._mounts(lines)
        if len(points) > len(hierarchies) or ((v1 or v2) and not hierarchies):
            raise Broken(f"{points!r}, {v1!r}, {v2!r} out of {hierarchies!r}")
        place.write_bytes(own)
        paths = cgroup._own_paths(cgroup._lines(place))
        for mount in (*v1.values(), *((v2,) if v2 else ())):
            for path in paths.values():
                seen = cgroup._directory_of(mount, path)
                if seen is not None and not seen.startswith(mount.point.rstrip("/")):
                    raise Broken(f"{seen!r} is not below {mount.point!r}")
        place.write_bytes(subuid)
        found = ids.subordinate_range(place, "me", 1000)
        if found is not None and found[0] <= 0:
            raise Broken(f"{found!r}")
        return points, [mount.point for mount in v1.values()], list(paths.values())

    v2_line = b"30 23 0:27 / /sys/fs/cgroup ro,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    v1_line = b"35 31 0:32 /docker/abc /sys/fs/cgroup/pids ro,nosuid - cgroup cgroup rw,pids\n"
    odd = b"36 31 8:1 / /media/a\\040b\xe2\x80\xa8c rw - vfat /dev/sdb1 rw\n"
    own = b"4:pids:/docker/abc/inner\n2:cpu,cpuacct:/svc\n0::/system.slice/x\n"
    seeds = (
        b"\0".join((v2_line + v1_line + odd, own, b"root:1:1\nme:100000:65536\n")),
        b"\0".join((v1_line.replace(b"/docker/abc", b"/"), b"4:pids:/../x\n", b"1000:5:6")),
        b"",
    )
    words = (
        b" - cgroup ",
        b" - ",
        b"\\040",
        b"\\012",
        b"\xe2\x80\xa8",
        b"\xc2\xa0",
        b"\r",
        b"\x0b",
        b"/../",
        b"\xd9\xa3",
    )
    return Target("procfs", ("sandboxd.spawner.cgroup", "sandboxd.spawner.ids"), run, (), seeds, words, outside=ACTS)
