"""What this node can enforce, found by trying: one fact for each guarantee, and the mode the spawner will run in.

Standard library only; changes nothing outside throw-away children. Called by the spawner before it settles, and as
`python -m sandboxd.spawner.probe` (JSON on stdout) by `host.check`.
"""

import contextlib
import json
import os
import platform
import sys as python
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from sandboxd.spawner import cgroup, ids, landlock, sys, trial
from sandboxd.spawner.cgroup_base import CgroupLimits, CgroupTree

Fact = tuple[str, str, str, str]  # guarantee, state, layers joined by commas, reason

ENFORCED: Final = "enforced"
DEGRADED: Final = "degraded"
ABSENT: Final = "absent"

_CAPABILITIES: Final = {
    "CAP_CHOWN": 0,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
}
_TRIAL_LIMITS: Final = (
    CgroupLimits(memory_bytes=1 << 26),
    CgroupLimits(pids=64),
    CgroupLimits(cpus=1.0),
    CgroupLimits(io_read_bytes_per_second=1 << 30, io_write_bytes_per_second=1 << 30),
)

# guarantee: the trials that carry it, its layers, and what it means if one of them fails
_TRIED: Final[Mapping[str, tuple[tuple[str, ...], str, str]]] = {
    "namespace.user": (("user",), "userns", "a payload's capabilities would be those of the host"),
    "namespace.pid": (("pid",), "pidns", "a payload could see and signal other processes"),
    "namespace.mount": (("mount",), "mntns", "a payload would see the host's files"),
    "namespace.net": (("net",), "netns", "a payload would share the host's network"),
    "namespace.ipc": (("ipc",), "ipcns", "a payload would share System V and POSIX queues with the host"),
    "namespace.uts": (("uts",), "utsns", "a payload would see the host's name"),
    "namespace.cgroup": (("cgroup",), "cgroupns", "a payload would see where in the cgroup tree it is"),
    "id.unprivileged": (("user",), "userns", "a payload would be uid 0 of the host"),
    "filesystem.root": (("mount", "root"), "pivot_root,mntns", "a payload would see the host's files"),
    "filesystem.proc": (
        ("proc",),
        "proc,pidns",
        "a sandbox has no /proc; within a container that masks its own none can be mounted",
    ),
    "filesystem.dev": (("dev",), "tmpfs,mntns", "a sandbox would lack /dev/null and its like"),
    "filesystem.noexec": (("noexec",), "noexec", "what a payload writes could be executed"),
    "filesystem.sockets": (
        ("idmap",),
        "idmapped mounts",
        "in directories of the host a payload could talk to a socket whose mode lets everybody write; "
        "id maps would stop it, which want root and a file system that takes them",
    ),
    "landlock.files": (("landlock_files",), "landlock", "only mounts and file modes restrict access to files"),
    "landlock.exec": (("landlock_exec",), "landlock", "only noexec mounts restrict what is executed"),
    "landlock.scopes": (("landlock_scopes",), "landlock", "needs Landlock ABI 6; pid and network namespaces remain"),
    "seccomp.allowlist": (("seccomp",), "seccomp", "a payload could make every system call"),
    "mediation.exec": (
        ("notify", "proc"),
        "seccomp,init,policy",
        "policy could not be asked when a program becomes another; needs Linux 5.19",
    ),
    "mediation.report": (("notify",), "seccomp,init", "a refused system call could not be told of; needs Linux 5.19"),
    "capabilities.none": (("capabilities",), "capset,bounding set", "a payload would keep capabilities"),
    "no_new_privs": (("no_new_privs",), "no_new_privs", "a set-uid program would give a payload privilege"),
    "network.none": (("net",), "netns,seccomp", "a payload could reach the network"),
    "kill.tree": (("pid", "kill_tree"), "pidns", "a process that left its group could survive"),
    "limit.open_files": (("rlimits",), "rlimit", "the kernel refuses RLIMIT_NOFILE"),
    "limit.file_size": (("file_size",), "rlimit", "the kernel refuses RLIMIT_FSIZE"),
    "limit.workspace": (("tmpfs",), "tmpfs", "the workspace would be unbounded"),
    "limit.tmp": (("tmpfs",), "tmpfs", "/tmp would be unbounded"),
}
_BY_THE_DAEMON: Final = ("limit.wall", "limit.idle", "limit.output")


class ModeRefused(Exception):
    """This process cannot run sandboxes safely; the message names what is in the way and what would mend it."""


def mode() -> str:
    """`root`, `rootless-subuid` or `rootless-single`; ModeRefused otherwise."""
    return _mode()[0]


def _mode() -> tuple[str, str]:
    """And what keeps an ordinary user from subordinate ids, with what would mend it: empty in the other modes."""
    if os.geteuid() == 0:
        _check_root()
        return "root", ""
    no_subordinate_ids = _cannot_enter("rootless-subuid")
    if not no_subordinate_ids:
        return "rootless-subuid", ""
    failure = _cannot_enter("rootless-single")
    if failure:
        raise ModeRefused(f"no usable user namespace ({failure}): {blocker()}")
    return "rootless-single", no_subordinate_ids


def _check_root() -> None:
    effective = sys.effective_capabilities()
    missing = sorted(name for name, number in _CAPABILITIES.items() if not effective >> number & 1)
    if missing:
        raise ModeRefused(
            f"uid 0 without {', '.join(missing)} can only make sandboxes that are uid 0 of the host themselves; "
            "give it these capabilities, or start sandboxd as an ordinary user"
        )
    if mapped_ids(Path("/proc/self/uid_map").read_text()) < 2 * ids.PER_SANDBOX:
        raise ModeRefused(
            "uid 0 of a user namespace that has no further ids cannot give a sandbox one of its own; "
            "start sandboxd as the ordinary user outside, or map a range of ids"
        )


def mapped_ids(uid_map: str) -> int:
    """How many ids exist in the user namespace with that map."""
    return sum(int(line.split()[2]) for line in uid_map.splitlines())


def _cannot_enter(mode: str) -> str:
    """Empty if a spawner can enter its user namespace and mount in it."""

    def enter() -> None:
        ids.enter_user_namespace(mode)
        trial.TRIALS["mount"]()

    return trial.attempt(enter)


def blocker(proc: Path = Path("/proc")) -> str:
    """Which of the known things forbids user namespaces here, with what would mend it."""
    if _sysctl(proc, "user/max_user_namespaces") == "0":
        return "user.max_user_namespaces is 0; set it with sysctl, or run as root"
    if _sysctl(proc, "kernel/unprivileged_userns_clone") == "0":
        return "kernel.unprivileged_userns_clone is 0; set it to 1 with sysctl, or run as root"
    if _sysctl(proc, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "kernel.apparmor_restrict_unprivileged_userns is 1; load the AppArmor profile for the daemon's own "
            "interpreter, or run as root"
        )
    status = (proc / "self" / "status").read_text().splitlines()
    if any(line.split() == ["Seccomp:", "2"] for line in status):
        return "the seccomp filter of a surrounding container; allow unshare, clone, mount and pivot_root in it"
    return "the kernel or a security module forbids them; run as root"


def _sysctl(proc: Path, name: str) -> str:
    try:
        return (proc / "sys" / name).read_text().strip()
    except OSError:
        return ""


def memfd() -> str:
    """How anonymous files are kept from being executed: `sysctl`, else `seal`, else (before Linux 6.3) `deny`."""
    if not trial.attempt(trial.TRIALS["memfd_sysctl"]):
        return "sysctl"
    return "deny" if trial.attempt(trial.TRIALS["memfd_seal"]) else "seal"


def probe() -> tuple[Fact, ...]:
    """One fact for each guarantee. Where no mode is possible, all that a spawner would do is absent."""
    try:
        found, no_subordinate_ids = _mode()
    except ModeRefused:
        return facts("none", {"enter": "sandboxd can run in no mode here"}, (), "none")
    results = {**trial.run_all(found), "subordinate ids": no_subordinate_ids}
    tree = cgroup.detect(f"sandboxd-probe-{os.getpid()}")
    try:
        limits = _tried_limits(tree)
    finally:
        tree.close()
    return facts(found, results, limits, tree.version)


def _tried_limits(tree: CgroupTree) -> tuple[str, ...]:
    """The limits that a sandbox's cgroup takes here; `cpuacct` too if CPU time is counted, `freezer` if it can stop."""
    held: list[str] = []
    sandbox = tree.create(os.urandom(16).hex())
    try:
        for limits in _TRIAL_LIMITS:
            with contextlib.suppress(OSError):  # a limit that the kernel refuses is one that does not hold
                held += sandbox.limit(limits)
        if "cpu_user_seconds" in dict(sandbox.usage()):
            held.append("cpuacct")
        with contextlib.suppress(OSError):
            sandbox.freeze()
            sandbox.thaw()
            held.append("freezer")
    finally:
        sandbox.remove()
    return tuple(held)


def facts(mode: str, results: Mapping[str, str], limits: tuple[str, ...], version: str) -> tuple[Fact, ...]:
    """The facts that follow from the trials' results (empty: went well) and from what was taken of the cgroup."""
    rows = [_tried(guarantee, results) for guarantee in _TRIED]
    rows = [_landlock_before_3(row) if row[0] == "landlock.files" else row for row in rows]
    rows += [(guarantee, ENFORCED, "supervisor", "") for guarantee in _BY_THE_DAEMON]
    rows += [_id_per_sandbox(mode, results), _exec_memfd(mode, results)]
    rows += _cgroup_facts(mode, limits, version)
    rows.append(_freeze(results, limits, version))
    return tuple(sorted(rows))


def without_idmap(found: tuple[Fact, ...], trees: Iterable[str]) -> tuple[Fact, ...]:
    """The facts, if these trees of the host could not be shown as nobody's though others can."""
    names = ", ".join(sorted(trees))
    reason = f"the file system of {names} takes no id map; {_TRIED['filesystem.sockets'][2]}"
    lesser = ("filesystem.sockets", DEGRADED, "idmapped mounts", reason)
    return tuple(lesser if fact[:2] == ("filesystem.sockets", ENFORCED) and names else fact for fact in found)


def _tried(guarantee: str, results: Mapping[str, str]) -> Fact:
    names, layers, consequence = _TRIED[guarantee]
    for name in ("enter", *names):
        failure = results.get(name, "" if name == "enter" else results.get("enter", "") or "was not tried")
        if failure:
            return (guarantee, ABSENT, "", f"{consequence} ({failure})")
    return (guarantee, ENFORCED, layers, "")


def _landlock_before_3(row: Fact) -> Fact:
    if row[1] == ENFORCED and landlock.abi() < 3:
        return (*row[:1], DEGRADED, row[2], "Landlock before ABI 3 does not cover truncate; file modes and mounts do")
    return row


def _id_per_sandbox(mode: str, results: Mapping[str, str]) -> Fact:
    guarantee = "id.per_sandbox"
    if mode == "rootless-single":
        why = results.get("subordinate ids") or "subordinate ids were not tried"
        return (guarantee, ABSENT, "", f"every sandbox has the user's own uid: {why}")
    state, reason = _tried("namespace.user", results)[1::2]
    return (guarantee, state, "userns" if state == ENFORCED else "", reason)


def _exec_memfd(mode: str, results: Mapping[str, str]) -> Fact:
    if mode == "none" or results.get("enter"):
        return ("exec.memfd", ABSENT, "", results.get("enter", ""))
    if not results.get("memfd_sysctl", "was not tried"):
        return ("exec.memfd", ENFORCED, "vm.memfd_noexec,seccomp", "")
    # The filter demands MFD_NOEXEC_SEAL, or denies the call where the kernel does not know that flag.
    if results.get("seccomp", "was not tried"):
        return ("exec.memfd", ABSENT, "", f"memory files can be executed ({results.get('seccomp', '')})")
    return ("exec.memfd", ENFORCED, "seccomp", "")


def _cgroup_facts(mode: str, limits: tuple[str, ...], version: str) -> list[Fact]:
    layer = f"cgroup {version}"
    # Paths of the host stay out of it: callers read these reasons.
    lacking = "no cgroup may be made here" if version == "none" else f"{layer} lacks the controller"
    counted = "the user's processes" if mode == "rootless-single" else "the processes of the sandbox's uid"
    without = {
        "limit.memory": (
            "memory",
            layer,
            DEGRADED,
            "rlimit",
            "RLIMIT_DATA and RLIMIT_AS bound each process, not their sum",
        ),
        "limit.swap": ("swap", layer, *_swap_without_cgroup()),
        "limit.pids": ("pids", layer, DEGRADED, "rlimit", f"RLIMIT_NPROC counts {counted}"),
        "limit.cpus": ("cpus", layer, ABSENT, "", "a payload may use every CPU"),
        "limit.cpu_time": (
            "cpuacct",
            f"supervisor,{layer},rlimit",
            DEGRADED,
            "rlimit",
            "RLIMIT_CPU bounds each process, not their sum",
        ),
        "limit.io": ("io", layer, ABSENT, "", "I/O bandwidth is not bounded"),
    }
    rows: list[Fact] = []
    for guarantee, (name, layers, state, weaker, consequence) in without.items():
        if mode == "none":
            rows.append((guarantee, ABSENT, "", lacking))
        elif name not in limits:
            rows.append((guarantee, state, weaker, f"{lacking}: {consequence}"))
        elif name == "io" and version == "v1":
            rows.append((guarantee, DEGRADED, layers, "cgroup v1 sees reads and direct writes, not buffered ones"))
        else:
            rows.append((guarantee, ENFORCED, layers, ""))
    return rows


def _freeze(results: Mapping[str, str], limits: tuple[str, ...], version: str) -> Fact:
    """What operators can do, and no limit of a profile's. The daemon goes by the layer: cgroup, or else init."""
    guarantee = "sandbox.freeze"
    if "freezer" in limits:
        return (guarantee, ENFORCED, f"cgroup {version}", "")
    failure = next((results[name] for name in ("enter", "pid", "proc") if results.get(name)), "")
    if failure:
        return (guarantee, ABSENT, "", f"no cgroup can be frozen here, and init cannot stop programs ({failure})")
    without = "programs are stopped by signals: they can tell, and one that goes on by itself is ended"
    return (guarantee, DEGRADED, "init", f"no cgroup can be frozen here: {without}")


def _swap_without_cgroup() -> tuple[str, str, str]:
    try:
        swapping = len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        swapping = True
    if swapping:
        return (ABSENT, "", "a payload may be swapped out")
    return (DEGRADED, "", "this node has no swap now, but may get it")


def main() -> None:
    try:
        found, refusal = mode(), ""
    except ModeRefused as error:
        found, refusal = "none", str(error)
    cgroup.make_writable()
    tree = cgroup.detect(f"sandboxd-probe-{os.getpid()}")
    tree.close()
    answer = {
        "mode": found,
        "refusal": refusal,
        "kernel": platform.release(),
        "landlock_abi": landlock.abi(),
        "memfd": memfd(),
        "cgroup": {"version": tree.version, "controllers": sorted(tree.controllers), "reason": tree.reason},
        "facts": [list(fact) for fact in probe()],
    }
    python.stdout.write(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
