"""Says what enforces what in one sandbox: the runtime's own rows, as far as the profile lets them hold.

Never claims more than the runtime's probe did, save for what the daemon itself enforces. Pure. Called by `plan`.
"""

import socket
from collections.abc import Iterator
from dataclasses import replace

from sandboxd.errors import Unenforceable
from sandboxd.model import EnforcementReport, EnforcementRow, Guarantee, RuntimeCapabilities, State
from sandboxd.profile.resolve import ResolvedProfile
from sandboxd.profile.schema import Argument, Spec

# Kept by the daemon's supervision of streams and clocks, whatever the runtime is.
_MAX_KEPT = 256  # reports: profiles by the limits that change one
_SUPERVISED = frozenset({Guarantee.LIMIT_WALL, Guarantee.LIMIT_IDLE, Guarantee.LIMIT_OUTPUT})


_rows_kept: dict[tuple[int, int, bool, bool], tuple[Spec, RuntimeCapabilities, tuple[EnforcementRow, ...]]] = {}


def report(profile: ResolvedProfile, capabilities: RuntimeCapabilities) -> EnforcementReport:
    """A row for each guarantee that concerns this profile."""
    spec = profile.spec
    # On the way of every request, and nearly always the same. By identity, which holds as long as the two are kept
    # here: to compare them would be as much work as the rows.
    key = (id(spec), id(capabilities), _limits_idle(profile), _limits_io(profile))
    if (known := _rows_kept.get(key)) is None:
        if len(_rows_kept) >= _MAX_KEPT:
            _rows_kept.clear()
        known = _rows_kept[key] = (spec, capabilities, tuple(_rows(profile, capabilities)))
    return EnforcementReport(capabilities.isolation, known[2], profile.warnings)


def refuse_unenforceable(profile: ResolvedProfile, found: EnforcementReport) -> None:
    """`Unenforceable` naming every required guarantee that does not hold here, and why."""
    broken = [
        row for row in found.rows if row.state is not State.ENFORCED and profile.level(row.guarantee) == "require"
    ]
    if broken:
        reasons = "; ".join(f"{row.guarantee} is {row.state}: {row.reason}" for row in broken)
        raise Unenforceable(
            f"profile {profile.name!r} or the request requires what runtime {found.runtime.value!r} cannot enforce on"
            f" this node: {reasons}; make it best_effort, or run `sandboxd check` and mend the node",
            message_for_agent="this node cannot confine the program as required",
        )


def _rows(profile: ResolvedProfile, capabilities: RuntimeCapabilities) -> Iterator[EnforcementRow]:
    offered = {row.guarantee: row for row in capabilities.rows}  # `capabilities.row` looks through them all
    filtered = capabilities.row(Guarantee.SECCOMP_ALLOWLIST).state is State.ENFORCED
    for guarantee in Guarantee:
        if not _concerns(profile, guarantee):
            continue
        if guarantee in _SUPERVISED and guarantee not in offered:
            yield EnforcementRow(guarantee, State.ENFORCED, ("supervisor",))
        else:
            row = offered.get(guarantee) or capabilities.row(guarantee)
            yield _as_profiled(profile, row, filtered=filtered)


def _concerns(profile: ResolvedProfile, guarantee: Guarantee) -> bool:
    match guarantee:
        case Guarantee.LIMIT_IDLE:
            return _limits_idle(profile)
        case Guarantee.LIMIT_IO:
            return _limits_io(profile)
        case Guarantee.MEDIATION_EXEC:
            return bool(profile.spec.mediate)
        case Guarantee.MEDIATION_REPORT:
            return bool(profile.spec.report)
        case Guarantee.SANDBOX_FREEZE:
            return False  # it confines no program
        case _:
            return True


def _limits_idle(profile: ResolvedProfile) -> bool:
    return profile.limits.idle_seconds > 0


def _limits_io(profile: ResolvedProfile) -> bool:
    return profile.limits.io_read_bytes_per_second > 0 or profile.limits.io_write_bytes_per_second > 0


def _as_profiled(profile: ResolvedProfile, row: EnforcementRow, *, filtered: bool) -> EnforcementRow:
    spec = profile.spec
    if row.guarantee is Guarantee.FILESYSTEM_SOCKETS and filtered and not _addresses_sockets(spec):
        return EnforcementRow(row.guarantee, State.ENFORCED, (*row.layers, "seccomp"))
    if row.state is State.ABSENT:
        return row
    if row.guarantee is Guarantee.FILESYSTEM_NOEXEC and spec.workspace is not None and spec.workspace.executable:
        return replace(row, state=State.DEGRADED, reason="the profile makes the workspace executable")
    if row.guarantee is Guarantee.LANDLOCK_SCOPES and spec.landlock.scopes is False:
        return EnforcementRow(row.guarantee, State.ABSENT, (), "the profile turns it off")
    return row


def _addresses_sockets(spec: Spec) -> bool:
    """Whether its programs can talk to a socket by a path: with connect(2), or from one that sends datagrams."""
    return any(
        not {"connect", "socket"}.isdisjoint(group.names)
        or ("socketpair" in group.names and not any(_leaves_out_datagrams(argument) for argument in group.args))
        for group in spec.seccomp.allow
    )


def _leaves_out_datagrams(argument: Argument) -> bool:
    return argument.index == 1 and socket.SOCK_DGRAM & argument.mask not in argument.one_of
