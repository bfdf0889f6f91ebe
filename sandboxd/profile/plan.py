"""Profile and request → what the runtime is told, what the program gets, and what enforces what; or a refusal.

Never weakens to fit a node: a `require` that does not hold refuses. Pure. Called by `execution` after the decision.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sandboxd.model import EnforcementReport, ExecPlan, ExecuteRequest, LaunchPlan, RuntimeCapabilities
from sandboxd.profile import environment, program
from sandboxd.profile.report import refuse_unenforceable, report
from sandboxd.profile.resolve import ResolvedProfile


@dataclass(frozen=True, slots=True)
class Plan:
    """The sandbox, the program in it, and the report that goes to the caller and on record."""

    launch: LaunchPlan
    exec: ExecPlan
    report: EnforcementReport


def plan(
    profile: ResolvedProfile,
    request: ExecuteRequest,
    capabilities: RuntimeCapabilities,
    sandbox_id: str,
    execution_id: str,
    offered: Iterable[tuple[str, str]] = (),
) -> Plan:
    """`profile` is already tightened and obliged, `offered` are variables that it may let in. `InvalidRequest` for a
    malformed program, path or variable, `Unenforceable` where a required guarantee does not hold here."""
    argv, files = program.argv_and_files(profile, request)
    env = environment.compose(profile, request.env, offered)
    cwd = program.working_directory(profile, request.cwd)
    collect = program.patterns(request.collect)
    found = report(profile, capabilities)
    refuse_unenforceable(profile, found)
    return Plan(
        launch=LaunchPlan(sandbox_id, profile.isolation, profile.digest, profile.limits, profile.network),
        exec=ExecPlan(execution_id, argv, env, cwd, profile.limits, request.stdin, files, collect),
        report=found,
    )
