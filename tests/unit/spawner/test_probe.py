"""The probe as root, as an ordinary user with and without subordinate ids, and inside container-like surroundings."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.model import Guarantee, State
from sandboxd.spawner import cgroup, probe, trial
from tests import reachable
from tests.skips import need_kernel, need_program, need_root

CHECKOUT = Path(__file__).resolve().parents[3]
UID = 64330
AS_USER = ("/usr/bin/setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
PROBE = ("/usr/bin/python3", "-B", "-m", "sandboxd.spawner.probe")
# As container engines do it. Another whole proc anywhere in sight would let a user mount one after all.
MASKED = (
    "grep -F ' - proc ' /proc/self/mountinfo | cut -d ' ' -f 5 | grep -vx /proc | xargs -r -n 1 umount -l; "
    "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys; mount -t tmpfs -o ro none /proc/acpi; "
    'exec "$@"'
)
ACCOUNTS = 'for f in passwd group subuid subgid; do mount --bind "$0/$f" "/etc/$f"; done; '
THEN = 'exec "$@"'
WELL = dict.fromkeys(("enter", "user", *trial.TRIALS), "")
ALL_LIMITS = ("memory", "swap", "pids", "cpus", "io", "cpuacct")


@dataclass(frozen=True, slots=True)
class Answer:
    mode: str
    refusal: str
    states: dict[str, str]
    reasons: dict[str, str]
    layers: dict[str, str]


def _read(facts: Sequence[Sequence[str]], mode: str = "", refusal: str = "") -> Answer:
    return Answer(
        mode,
        refusal,
        {fact[0]: fact[1] for fact in facts},
        {fact[0]: fact[3] for fact in facts},
        {fact[0]: fact[2] for fact in facts},
    )


def _probe(*before: str) -> Answer:
    command = [*reachable.prefix(CHECKOUT), *before, *PROBE]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, env={"PATH": os.defpath})
    assert (done.returncode, done.stderr) == (0, "")
    body = json.loads(done.stdout)
    return _read(body["facts"], body["mode"], body["refusal"])


def _private(script: str, *arguments: str) -> tuple[str, ...]:
    return ("/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", script, *arguments)


def test_each_guarantee_has_one_fact_in_known_states() -> None:
    for mode, results, limits in (
        ("root", WELL, ALL_LIMITS),
        ("rootless-single", WELL, ()),
        ("none", {"enter": "no"}, ()),
    ):
        facts = probe.facts(mode, results, limits, "v2" if limits else "none")
        assert sorted(fact[0] for fact in facts) == sorted(Guarantee)
        assert {fact[1] for fact in facts} <= set(State)
        assert all(bool(fact[3]) == (fact[1] != State.ENFORCED) for fact in facts)
        assert all(fact[2] for fact in facts if fact[1] == State.ENFORCED)


def test_root_on_this_machine_enforces_everything_but_v1_io() -> None:
    need_root()
    answer = _probe()
    weaker = {name for name, state in answer.states.items() if state != State.ENFORCED}
    assert answer.mode == "root"
    assert weaker <= {Guarantee.LIMIT_IO, Guarantee.LANDLOCK_FILES, Guarantee.LANDLOCK_SCOPES, Guarantee.LIMIT_SWAP}


def test_ordinary_user_without_subordinate_ids_has_rlimits_and_says_so() -> None:
    need_root()
    answer = _probe(*AS_USER)
    assert answer.mode == "rootless-single"
    assert answer.states[Guarantee.FILESYSTEM_ROOT] == State.ENFORCED
    assert answer.states[Guarantee.ID_UNPRIVILEGED] == State.ENFORCED
    assert answer.states[Guarantee.ID_PER_SANDBOX] == State.ABSENT
    assert "add a range" in answer.reasons[Guarantee.ID_PER_SANDBOX]
    assert answer.states[Guarantee.LIMIT_MEMORY] == State.DEGRADED
    assert "RLIMIT_DATA" in answer.reasons[Guarantee.LIMIT_MEMORY]
    assert answer.states[Guarantee.LIMIT_PIDS] == State.DEGRADED
    assert answer.states[Guarantee.LIMIT_CPUS] == State.ABSENT
    assert not any("/sys/fs/cgroup" in reason for reason in answer.reasons.values())


def _accounts(etc: Path, subordinate: str) -> str:
    """Copies of the account files with one more user, who has that range; the directory they are in."""
    etc.chmod(0o755)
    added = {
        "passwd": f"probe-test:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin\n",
        "group": f"probe-test:x:{UID}:\n",
        "subuid": subordinate,
        "subgid": subordinate,
    }
    for name, line in added.items():
        original = Path("/etc", name)
        original.touch()
        (etc / name).write_text(original.read_text() + line)
    return str(etc)


@pytest.mark.parametrize("owner", ["probe-test", str(UID)])
def test_ordinary_user_with_subordinate_ids_gives_each_sandbox_its_own(owner: str, tmp_path: Path) -> None:
    need_root()
    need_program("newuidmap", "uidmap")
    etc = _accounts(tmp_path, f"{owner}:1500000000:65536\n")
    answer = _probe(*_private(ACCOUNTS + THEN, etc, *AS_USER))
    assert answer.mode == "rootless-subuid"
    assert answer.states[Guarantee.ID_PER_SANDBOX] == State.ENFORCED


def _tool(options: str, mode: str) -> str:
    """Covers newuidmap with a copy of it on a file system of its own."""
    return (
        f'mount -t tmpfs -o mode=755,{options} none "$0"; cp /usr/bin/newuidmap "$0/"; chmod {mode} "$0/newuidmap"; '
        'mount --bind "$0/newuidmap" /usr/bin/newuidmap; '
    )


RANGE = "probe-test:1500000000:65536\n"
NOT_ENTERED = {
    "no range": ("", "", (), "the user has no range in /etc/subuid; add a range with usermod --add-subuids"),
    "too small a range": ("probe-test:1500000000:31\n", "", (), "has 31 ids, too few; add a range"),
    "no tool": (RANGE, "mount --bind /dev/null /usr/bin/newuidmap; ", (), "no newuidmap; apt-get install uidmap"),
    "without privilege": (RANGE, _tool("suid", "755"), (), "newuidmap is not set-uid root; install uidmap again"),
    "nosuid": (RANGE, _tool("nosuid", "4755"), (), "its file system is mounted nosuid"),
    "no_new_privs": (RANGE, "", ("/usr/bin/setpriv", "--no-new-privs"), "no_new_privs is set"),
    "ids that do not exist": ("probe-test:4294967290:65536\n", "", (), "compare the user's range in /etc/subuid"),
}


@pytest.mark.parametrize("case", NOT_ENTERED)
def test_subordinate_ids_that_cannot_be_used_are_not_called_missing(case: str, tmp_path: Path) -> None:
    need_root()
    need_program("newuidmap", "uidmap")
    subordinate, first, last, said = NOT_ENTERED[case]
    etc = _accounts(tmp_path, subordinate)
    answer = _probe(*_private(ACCOUNTS + first + THEN, etc, *AS_USER, *last))
    assert answer.mode == "rootless-single"
    assert answer.states[Guarantee.ID_PER_SANDBOX] == State.ABSENT
    reason = answer.reasons[Guarantee.ID_PER_SANDBOX]
    assert reason.startswith("every sandbox has the user's own uid: ")
    assert said in reason, reason
    assert ("refused the user's subordinate ids (" in reason) == (
        case not in ("no range", "too small a range", "no tool")
    )


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup as a service manager delegates it to a user (cgroup v2)."""
    need_root()
    root = Path("/sys/fs/cgroup")
    controllers = root / "cgroup.controllers"
    need_kernel("memory and pids in cgroup v2", present=controllers.exists() and "memory" in controllers.read_text())
    (root / "cgroup.subtree_control").write_text("+memory +pids +cpu +io")
    group = root / f"probe-test-{os.getpid()}"
    group.mkdir()
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", group / "cgroup.threads"):
        os.chown(path, UID, UID)
    yield group
    (group / "cgroup.kill").write_text("1")
    for below in sorted(group.rglob("*/"), reverse=True):
        below.rmdir()
    group.rmdir()


def test_user_with_a_delegated_cgroup_has_all_limits_and_leaves_it_as_it_was(delegated: Path) -> None:
    enter = 'echo $$ >"$0/cgroup.procs"; "$@"; cat "$0/cgroup.subtree_control" >&2; exec ls -d "$0"/*/ >&2'
    command = ("/bin/sh", "-c", enter, str(delegated), *AS_USER, *PROBE)
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    answer = _read(json.loads(done.stdout)["facts"])
    for limit in ("memory", "pids", "cpus", "cpu_time", "io"):
        assert answer.states[f"limit.{limit}"] == State.ENFORCED, answer.reasons[f"limit.{limit}"]
    assert answer.layers["limit.memory"] == "cgroup v2"
    assert "No such file" in done.stderr.strip().splitlines()[-1]
    assert len(done.stderr.strip().splitlines()) == 1


def test_uid_0_without_capabilities_is_refused_by_their_names() -> None:
    need_root()
    answer = _probe("/usr/bin/setpriv", "--bounding-set=-sys_admin,-setuid", "--inh-caps=-all")
    assert answer.mode == "none"
    assert "CAP_SETUID, CAP_SYS_ADMIN" in answer.refusal
    assert answer.states[Guarantee.NAMESPACE_MOUNT] == State.ABSENT


def test_uid_0_of_a_namespace_with_one_id_is_refused() -> None:
    need_root()
    answer = _probe(*AS_USER, "/usr/bin/unshare", "--map-root-user")
    assert answer.mode == "none"
    assert "no further ids" in answer.refusal


def test_root_in_a_container_with_masked_proc_still_has_its_own() -> None:
    need_root()
    answer = _probe(*_private(MASKED, "sh"))
    assert answer.states[Guarantee.FILESYSTEM_PROC] == State.ENFORCED
    assert (answer.states[Guarantee.EXEC_MEMFD], answer.layers[Guarantee.EXEC_MEMFD]) == (State.ENFORCED, "seccomp")


def test_user_in_a_container_with_masked_proc_has_none_and_says_why() -> None:
    need_root()
    answer = _probe(*_private(MASKED, "sh", *AS_USER))
    assert answer.mode == "rootless-single"
    assert answer.states[Guarantee.FILESYSTEM_PROC] == State.ABSENT
    assert "masks" in answer.reasons[Guarantee.FILESYSTEM_PROC]


def test_user_where_user_namespaces_are_off_is_refused_by_the_sysctl() -> None:
    """In a nested user namespace, since the limit is one per user namespace."""
    need_root()
    closed = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"'
    answer = _probe(
        *AS_USER, "/usr/bin/unshare", "--user", "--map-current-user", "--keep-caps", "/bin/sh", "-ec", closed, "sh",
        "/usr/bin/setpriv", "--ambient-caps=-all",
    )  # fmt: skip
    assert answer.mode == "none"
    assert "user.max_user_namespaces is 0" in answer.refusal


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor profile"),
        ("kernel/other", "1", "the kernel or a security module"),
    ],
)
def test_what_blocks_user_namespaces_is_named(tmp_path: Path, name: str, value: str, said: str) -> None:
    path = tmp_path / "sys" / name
    path.parent.mkdir(parents=True)
    path.write_text(f"{value}\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nSeccomp:\t0\n")
    assert said in probe.blocker(tmp_path)


def test_seccomp_of_an_outer_container_is_named(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n")
    assert "seccomp filter of a surrounding container" in probe.blocker(tmp_path)


@pytest.mark.parametrize("failing", sorted({"user", *trial.TRIALS} - {"memfd_sysctl", "memfd_seal"}))
def test_failed_trial_takes_a_guarantee_away(failing: str) -> None:
    facts = _read(probe.facts("root", {**WELL, failing: "EPERM"}, ALL_LIMITS, "v2"))
    absent = {name for name, state in facts.states.items() if state == State.ABSENT}
    assert absent
    assert all("(EPERM)" in facts.reasons[name] for name in absent)


def test_memory_files_fall_back_to_the_filter() -> None:
    no_sysctl = {**WELL, "memfd_sysctl": "EROFS"}
    assert _read(probe.facts("root", WELL, (), "none")).layers["exec.memfd"] == "vm.memfd_noexec,seccomp"
    assert _read(probe.facts("root", no_sysctl, (), "none")).layers["exec.memfd"] == "seccomp"
    neither = _read(probe.facts("root", {**no_sysctl, "seccomp": "EINVAL"}, (), "none"))
    assert neither.states["exec.memfd"] == State.ABSENT


def test_buffered_writes_that_v1_does_not_see_degrade_io() -> None:
    assert _read(probe.facts("root", WELL, ALL_LIMITS, "v1")).states["limit.io"] == State.DEGRADED
    assert _read(probe.facts("root", WELL, ALL_LIMITS, "v2")).states["limit.io"] == State.ENFORCED


@pytest.mark.parametrize(
    ("lost", "guarantee", "state"),
    [
        ("memory", "limit.memory", State.DEGRADED),
        ("pids", "limit.pids", State.DEGRADED),
        ("cpus", "limit.cpus", State.ABSENT),
        ("cpuacct", "limit.cpu_time", State.DEGRADED),
        ("io", "limit.io", State.ABSENT),
    ],
)
def test_limit_that_the_cgroup_refused_is_not_claimed(lost: str, guarantee: str, state: State) -> None:
    held = tuple(name for name in ALL_LIMITS if name != lost)
    facts = _read(probe.facts("root", WELL, held, "v2"))
    assert facts.states[guarantee] == state
    assert "cgroup v2 lacks the controller" in facts.reasons[guarantee]


def test_what_cannot_be_frozen_is_stopped_by_init_or_not_at_all() -> None:
    frozen = _read(probe.facts("root", WELL, ("freezer",), "v1"))
    assert (frozen.states["sandbox.freeze"], frozen.layers["sandbox.freeze"]) == (State.ENFORCED, "cgroup v1")
    stopped = _read(probe.facts("rootless-single", WELL, (), "none"))
    assert (stopped.states["sandbox.freeze"], stopped.layers["sandbox.freeze"]) == (State.DEGRADED, "init")
    blind = _read(probe.facts("rootless-single", {**WELL, "proc": "EPERM"}, (), "none"))
    assert (blind.states["sandbox.freeze"], blind.layers["sandbox.freeze"]) == (State.ABSENT, "")


def test_ids_of_a_namespace_are_counted() -> None:
    assert probe.mapped_ids("         0          0 4294967295\n") == 4294967295
    assert probe.mapped_ids("0 1000 1\n1 100000 65536\n") == 65537


def test_memfd_rule_follows_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(1, "no")

    monkeypatch.setitem(trial.TRIALS, "memfd_sysctl", lambda: None)
    assert probe.memfd() == "sysctl"
    monkeypatch.setitem(trial.TRIALS, "memfd_sysctl", refused)
    monkeypatch.setitem(trial.TRIALS, "memfd_seal", lambda: None)
    assert probe.memfd() == "seal"
    monkeypatch.setitem(trial.TRIALS, "memfd_seal", refused)
    assert probe.memfd() == "deny"


def test_probe_leaves_no_cgroup_behind(tree: cgroup.CgroupTree) -> None:
    facts = _read(probe.probe())
    assert facts.states["limit.memory"] == State.ENFORCED
    left = list(Path("/sys/fs/cgroup").rglob(f"sandboxd-probe-{os.getpid()}"))
    assert left == []
