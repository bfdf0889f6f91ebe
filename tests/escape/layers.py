"""One attempt against one layer of the sandbox, and nothing else of it: `python -m tests.escape.layers ATTEMPT LAYER`.

Runs as root in a process that is thrown away, in namespaces of its own; puts the layer on with the spawner's own code.
The exit status is 0 where the attempt worked, else its errno, and `BROKEN` where it came to none. Started by
`test_one_layer`; stdin is `Given`.
"""

import base64
import json
import mmap
import os
import shutil
import socket
import sys as interpreter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sandboxd.spawner import blank, landlock, mounts, sys
from sandboxd.spawner.seccomp import Filter

UID = 0x70000000
PROGRAM = "/usr/bin/true"
BROKEN = 254
CORE_PATTERN = f"{mounts.PROC_FULL}/sys/kernel/core_pattern"


@dataclass(frozen=True, slots=True)
class Given:
    """What the layers are made of: a directory for files, Landlock rules, and a filter in base64."""

    directory: str
    rules: tuple[tuple[str, str], ...]
    seccomp: str

    def text(self) -> str:
        return json.dumps(asdict(self))


def _copy(given: Given) -> str:
    return shutil.copy(PROGRAM, f"{given.directory}/evil")


def _run(path: str) -> None:
    os.execv(path, [path])


def _map_copy(given: Given) -> None:
    """What a loader does that is itself allowed to run."""
    with Path(_copy(given)).open("rb") as file:
        mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)


def _run_memfd(_: Given) -> None:
    fd = os.memfd_create("evil", 0)
    os.write(fd, Path(PROGRAM).read_bytes())
    readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    _run(f"/proc/self/fd/{readable}")


ATTEMPTS: dict[str, Callable[[Given], object]] = {
    "run_copy": lambda given: _run(_copy(given)),
    "map_copy": _map_copy,
    "run_memfd": _run_memfd,
    "mount": lambda given: sys.mount("none", given.directory, "tmpfs", 0),
    "umount": lambda _: sys.umount2("/proc", sys.MNT_DETACH),
    "unshare": lambda _: sys.unshare(sys.CLONE_NEWNS),
    "setns": lambda _: sys.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), sys.CLONE_NEWNS),
    "chroot": lambda _: os.chroot("/usr"),
    "sethostname": lambda _: socket.sethostname("evil"),
    "mknod": lambda given: os.mknod(f"{given.directory}/null", 0o020666, os.makedev(1, 3)),
    "core_pattern": lambda _: os.close(os.open(CORE_PATTERN, os.O_WRONLY)),  # never written
}


def _no_exec_mount(given: Given) -> None:
    sys.mount("workspace", given.directory, "tmpfs", mounts._workspace_flags(executable=False))


def _landlock(given: Given) -> None:
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    sys.landlock_restrict_self(landlock.build(landlock.abi(), given.rules, scoped=True))


def _seccomp(given: Given) -> None:
    program = Filter(base64.b64decode(given.seccomp))  # which owns what its `program` points to
    sys.seccomp_set_filter(program.program)


def _other_uid(_: Given) -> None:
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


LAYERS: dict[str, Callable[[Given], object]] = {
    "none": lambda _: None,
    "noexec": _no_exec_mount,
    "landlock": _landlock,
    "memfd_sysctl": lambda _: blank._forbid_executable_memfds(),
    "seccomp": _seccomp,
    "capabilities": lambda _: sys.drop_capabilities(),
    "uid": _other_uid,
    "read_only_proc": lambda _: mounts.mask_proc(),
}


def main() -> None:
    try:
        attempt, layer = interpreter.argv[1:]
        fields = json.load(interpreter.stdin)
        given = Given(fields["directory"], tuple((path, access) for path, access in fields["rules"]), fields["seccomp"])
        stage = mounts.Stage()
        pid, _ = sys.clone3(sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWUTS)
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
        _try(attempt, layer, given, stage)
    finally:
        os._exit(BROKEN)


def _try(attempt: str, layer: str, given: Given, stage: mounts.Stage) -> None:
    """In new namespaces, as the child that becomes an init. Does not return unless something broke."""
    if not mounts.mount_private_proc():
        return
    of_the_proc = layer in ("memfd_sysctl", "read_only_proc")
    if of_the_proc:
        LAYERS[layer](given)
    if attempt != "core_pattern":
        # The programs are in the host's view; a copy of it, so that nothing done there is done to the host.
        sys.setns(stage.host_mnt, sys.CLONE_NEWNS)
        sys.unshare(sys.CLONE_NEWNS)
        sys.mount("none", "/", "", sys.MS_REC | sys.MS_PRIVATE)
        sys.mount("proc", "/proc", "proc", 0)
    if not of_the_proc:
        LAYERS[layer](given)
    try:
        ATTEMPTS[attempt](given)
    except OSError as error:
        os._exit(error.errno or BROKEN)
    os._exit(0)


if __name__ == "__main__":
    main()
