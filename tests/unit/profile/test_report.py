from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.errors import Unenforceable
from sandboxd.model import EnforcementReport, Guarantee, Isolation, RuntimeCapabilities, State
from sandboxd.profile.report import _MAX_KEPT, refuse_unenforceable, report
from tests.unit.profile.profiles import capabilities, profile, small

MORE = "\n      - {"  # another entry of a list, as the small profile is indented


MEDIATED = (Guarantee.MEDIATION_EXEC, Guarantee.MEDIATION_REPORT)  # of profiles that have it: test_mediation


def states(found: EnforcementReport) -> dict[Guarantee, State]:
    return {row.guarantee: row.state for row in found.rows}


def test_limits_that_are_off_have_no_row() -> None:
    found = states(report(profile(), capabilities()))
    assert Guarantee.LIMIT_IDLE not in found
    assert Guarantee.LIMIT_IO not in found
    idle = replace(profile(), limits=replace(profile().limits, idle_seconds=1.0, io_read_bytes_per_second=4096))
    assert {Guarantee.LIMIT_IDLE, Guarantee.LIMIT_IO} <= set(states(report(idle, capabilities())))


def test_an_executable_workspace_is_reported_as_degraded_noexec() -> None:
    (row,) = (row for row in report(profile("build"), capabilities()).rows if row.guarantee == "filesystem.noexec")
    assert (row.state, row.reason) == (State.DEGRADED, "the profile makes the workspace executable")
    assert states(report(profile(), capabilities()))[Guarantee.FILESYSTEM_NOEXEC] is State.ENFORCED


def test_scopes_that_the_profile_turns_off_are_absent() -> None:
    spec = profile().spec
    off = replace(
        profile(), spec=spec.model_copy(update={"landlock": spec.landlock.model_copy(update={"scopes": False})})
    )
    assert states(report(off, capabilities()))[Guarantee.LANDLOCK_SCOPES] is State.ABSENT


def test_what_a_runtime_does_not_offer_is_absent_and_supervision_is_the_daemons() -> None:
    found = states(report(profile(), RuntimeCapabilities(Isolation.PROCESS, "root", ())))
    assert found[Guarantee.SECCOMP_ALLOWLIST] is State.ABSENT
    assert found[Guarantee.LIMIT_WALL] is State.ENFORCED


def test_best_effort_runs_and_is_reported() -> None:
    found = report(profile(), capabilities(LIMIT_MEMORY=State.DEGRADED, LIMIT_SWAP=State.ABSENT))
    refuse_unenforceable(profile(), found)
    assert states(found)[Guarantee.LIMIT_MEMORY] is State.DEGRADED
    assert found.warnings == profile().warnings


@pytest.mark.parametrize("state", [State.DEGRADED, State.ABSENT])
def test_a_required_guarantee_that_does_not_hold_is_a_refusal_by_name(state: State) -> None:
    for each in (profile("strict"), profile()):
        found = report(each, capabilities(SECCOMP_ALLOWLIST=state))
        with pytest.raises(Unenforceable, match=r"seccomp\.allowlist is \w+: the test says so"):
            refuse_unenforceable(each, found)


def test_every_guarantee_is_required_by_strict() -> None:
    for guarantee in Guarantee:
        if guarantee in (Guarantee.LIMIT_IDLE, Guarantee.LIMIT_IO, Guarantee.SANDBOX_FREEZE, *MEDIATED):
            continue
        # Two layers carry this one, and strict's own filter is one of them.
        more = {"SECCOMP_ALLOWLIST": State.ABSENT} if guarantee is Guarantee.FILESYSTEM_SOCKETS else {}
        found = report(profile("strict"), capabilities(**{guarantee.name: State.ABSENT, **more}))
        with pytest.raises(Unenforceable):
            refuse_unenforceable(profile("strict"), found)


@pytest.mark.parametrize(
    ("allowed", "state"),
    [
        ("names: [read]", State.ENFORCED),
        ("names: [read, connect]", State.ABSENT),
        ("names: [read, socket]", State.ABSENT),
        ("names: [read, socketpair]", State.ABSENT),
        ("names: [socketpair], args: [{index: 0, one_of: [1]}]", State.ABSENT),
        ("names: [socketpair], args: [{index: 1, one_of: [1, 2]}]", State.ABSENT),
        ("names: [socketpair], args: [{index: 1, mask: 1, one_of: [0]}]", State.ABSENT),
        ("names: [socketpair], args: [{index: 1, mask: 0xf, one_of: [1, 5]}]", State.ENFORCED),
    ],
)
def test_filter_that_can_address_no_socket_keeps_from_those_of_the_host(
    allowed: str, state: State, tmp_path: Path
) -> None:
    made = small(
        tmp_path, "names: [execve, exit_group, read, write]", f"names: [execve], why: so it runs}}{MORE}{allowed}"
    )
    with_filter = capabilities(FILESYSTEM_SOCKETS=State.ABSENT)
    without = capabilities(FILESYSTEM_SOCKETS=State.ABSENT, SECCOMP_ALLOWLIST=State.ABSENT)
    assert states(report(made, with_filter))[Guarantee.FILESYSTEM_SOCKETS] is state
    assert states(report(made, without))[Guarantee.FILESYSTEM_SOCKETS] is State.ABSENT


def test_strict_addresses_no_socket_and_default_does() -> None:
    node = capabilities(FILESYSTEM_SOCKETS=State.ABSENT)
    of = {name: states(report(profile(name), node))[Guarantee.FILESYSTEM_SOCKETS] for name in ("strict", "default")}
    assert of == {"strict": State.ENFORCED, "default": State.ABSENT}


def test_each_of_many_profiles_that_come_and_go_gets_its_own_report() -> None:
    """Reports are kept by the identity of what they are made from, which the interpreter gives out again."""
    spec = profile().spec
    for number in range(2 * _MAX_KEPT + 2):
        scopes = number % 2 == 0
        each = spec.model_copy(update={"landlock": spec.landlock.model_copy(update={"scopes": scopes})})
        found = states(report(replace(profile(), spec=each), capabilities()))
        assert found[Guarantee.LANDLOCK_SCOPES] is (State.ENFORCED if scopes else State.ABSENT)
