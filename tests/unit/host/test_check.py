import ctypes.util
import os
from pathlib import Path

import pytest

from sandboxd.errors import RuntimeFailed
from sandboxd.host import check, kernel
from sandboxd.host.check import CheckReport, Finding, Unstartable, closed_directory
from sandboxd.host.probed import Probed
from sandboxd.model import EnforcementRow, Guarantee, Isolation, RuntimeCapabilities, State

PROFILES = (Path(__file__).resolve().parents[3] / "profiles",)


def _probed(
    mode: str = "root",
    weaker: tuple[EnforcementRow, ...] = (),
    controllers: tuple[str, ...] = ("cpu", "cpuacct", "io", "memory", "pids"),
    refusal: str = "",
) -> Probed:
    others = {row.guarantee for row in weaker}
    rows = tuple(
        EnforcementRow(guarantee, State.ENFORCED, ("layer",)) for guarantee in Guarantee if guarantee not in others
    )
    return Probed(
        mode=mode,
        refusal=refusal,
        kernel="6.18",
        landlock_abi=7,
        memfd="sysctl",
        cgroup_version="v2" if controllers else "none",
        cgroup_controllers=controllers,
        cgroup_reason="" if controllers else "nothing is mounted",
        capabilities=RuntimeCapabilities(Isolation.PROCESS, mode, (*rows, *weaker)),
    )


def _check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, probed: Probed) -> CheckReport:
    monkeypatch.setattr(check, "probe", lambda: probed)
    return check.check(PROFILES, tmp_path / "state")


def _row(report: CheckReport, feature: str) -> check.Row:
    (found,) = (row for row in report.rows if row.feature == feature)
    return found


def test_node_that_enforces_everything_starts_every_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = _check(monkeypatch, tmp_path, _probed())
    assert (report.exit_code, report.unstartable) == (0, ())
    assert {"default", "strict"} <= set(report.profiles)
    assert _row(report, "profiles").state is Finding.OK
    assert {guarantee.value for guarantee in Guarantee} <= {row.feature for row in report.rows}


def test_lost_guarantee_refuses_the_profiles_that_require_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lost = EnforcementRow(Guarantee.LIMIT_MEMORY, State.DEGRADED, ("rlimit",), "no cgroup: RLIMIT_AS")
    report = _check(monkeypatch, tmp_path, _probed(weaker=(lost,)))
    assert report.exit_code == 1
    assert "strict" in {item.profile for item in report.unstartable}
    assert "default" not in {item.profile for item in report.unstartable}
    assert all("limit.memory" in item.reason for item in report.unstartable)
    row = _row(report, "limit.memory")
    assert (row.found, row.consequence, row.state) == ("rlimit", "no cgroup: RLIMIT_AS", Finding.DEGRADED)
    assert "strict" in _row(report, "profiles").consequence


def test_lost_floor_lets_nothing_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lost = EnforcementRow(Guarantee.SECCOMP_ALLOWLIST, State.ABSENT, (), "no seccomp")
    report = _check(monkeypatch, tmp_path, _probed(weaker=(lost,)))
    assert report.exit_code == 2
    assert len(report.unstartable) == len(report.profiles)
    assert _row(report, "seccomp.allowlist").state is Finding.MISSING


def test_refused_mode_lets_nothing_run_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = _check(monkeypatch, tmp_path, _probed(mode="none", refusal="user.max_user_namespaces is 0; set it"))
    assert report.exit_code == 2
    assert _row(report, "mode").consequence == "user.max_user_namespaces is 0; set it"
    assert _row(report, "mode").state is Finding.MISSING


def test_single_id_is_a_weakness_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = _row(_check(monkeypatch, tmp_path, _probed(mode="rootless-single")), "mode")
    assert row.state is Finding.DEGRADED
    assert "own uid" in row.consequence


@pytest.mark.parametrize(
    ("controllers", "state", "said"),
    [
        ((), Finding.DEGRADED, "nothing is mounted"),
        (("memory", "pids"), Finding.DEGRADED, "no cpu, io"),
        (("cpu", "io", "memory", "pids"), Finding.OK, ""),
    ],
)
def test_cgroup_row_names_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, controllers: tuple[str, ...], state: Finding, said: str
) -> None:
    row = _row(_check(monkeypatch, tmp_path, _probed(controllers=controllers)), "cgroup")
    assert row.state is state
    assert said in row.consequence


def test_probe_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing() -> Probed:
        raise RuntimeFailed("the probe ended with 3")

    monkeypatch.setattr(check, "probe", failing)
    report = check.check(PROFILES, tmp_path)
    assert report.exit_code == 2
    assert _row(report, "probe").consequence == "the probe ended with 3"


def test_profiles_that_do_not_load_are_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("apiVersion: sandboxd.io/v1\nkind: Nonsense\n")
    monkeypatch.setattr(check, "probe", _probed)
    report = check.check((tmp_path,), tmp_path / "state")
    assert report.exit_code == 2
    assert "bad.yaml" in _row(report, "profiles").consequence


def test_missing_libseccomp_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    row = _row(_check(monkeypatch, tmp_path, _probed()), "libseccomp")
    assert (row.state, "apt-get install libseccomp2" in row.consequence) == (Finding.MISSING, True)


def test_libseccomp_here_tells_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = _row(_check(monkeypatch, tmp_path, _probed()), "libseccomp")
    assert row.state is Finding.OK
    assert row.found.count(".") == 2


def test_payload_python_below_a_closed_directory_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "probe", _probed)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    python = closed / "python3"
    python.write_text("")
    python.chmod(0o755)
    row = _row(check.check(PROFILES, tmp_path, python), "payload python")
    assert row.state is Finding.MISSING
    assert "closed to others" in row.consequence
    missing = _row(check.check(PROFILES, tmp_path, tmp_path / "missing"), "payload python")
    assert (missing.state, "apt-get install python3" in missing.consequence) == (Finding.MISSING, True)


def test_directory_closed_to_others_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a").chmod(0o700)
    assert closed_directory(Path("/usr/bin/env")) is None
    found = closed_directory(inner / "python3")
    assert found is not None
    assert (tmp_path / "a").is_relative_to(found)


def test_state_directory_may_be_missing_but_not_open_to_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(check, "probe", _probed)
    state = tmp_path / "state"
    assert _row(check.check(PROFILES, state), "state directory").found == f"{state}, to be made"
    state.mkdir(mode=0o700)
    assert _row(check.check(PROFILES, state), "state directory").state is Finding.OK
    state.chmod(0o755)
    assert _row(check.check(PROFILES, state), "state directory").state is Finding.DEGRADED
    state.rmdir()
    state.write_text("")
    assert _row(check.check(PROFILES, state), "state directory").state is Finding.MISSING


def test_state_directory_that_cannot_be_made_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "probe", _probed)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    row = _row(check.check(PROFILES, Path("/var/lib/sandboxd-never-made")), "state directory")
    assert (row.state, "state_dir" in row.consequence) == (Finding.MISSING, True)


def test_user_without_subordinate_ids_learns_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    shared = EnforcementRow(Guarantee.ID_PER_SANDBOX, State.ABSENT, (), "there is no newuidmap; apt-get install uidmap")
    row = _row(_check(monkeypatch, tmp_path, _probed("rootless-single", (shared,))), "subordinate ids")
    assert (row.state, row.consequence) == (Finding.DEGRADED, shared.reason)
    row = _row(_check(monkeypatch, tmp_path, _probed("rootless-subuid")), "subordinate ids")
    assert (row.state, row.consequence) == (Finding.OK, "")


def test_untested_kernel_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "running", lambda: kernel.Kernel("5.15.0", "x86_64"))
    row = _row(_check(monkeypatch, tmp_path, _probed()), "kernel")
    assert (row.state, "6.1 and 6.18" in row.consequence) == (Finding.OK, True)


def test_exit_code_tells_some_none_and_all() -> None:
    some = (Unstartable("a", ""),)
    assert CheckReport("root", (), ("a", "b"), ()).exit_code == 0
    assert CheckReport("root", (), ("a", "b"), some).exit_code == 1
    assert CheckReport("root", (), ("a",), some).exit_code == 2
    assert CheckReport("none", (), ("a",), ()).exit_code == 2


def test_this_machine_answers_for_real(tmp_path: Path) -> None:
    report = check.check(PROFILES, tmp_path / "state")
    assert report.mode != "none"
    assert {guarantee.value for guarantee in Guarantee} <= {row.feature for row in report.rows}
    assert all(row.found for row in report.rows)
    assert all(row.consequence for row in report.rows if row.state is not Finding.OK)
