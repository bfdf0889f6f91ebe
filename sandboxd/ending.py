"""What ended an execution, and what an agent is told about it: pure functions over the facts that were gathered.

Never reads what the program printed. Called by `supervise` once nothing of the execution is left alive.

The first row that applies is the end reason:

| fact                                                               | end reason                        |
|--------------------------------------------------------------------|-----------------------------------|
| something asked for the end while the main process ran: a deadline, | that reason; of several the first |
| the output limit, an OOM notice, the client, an operator, the node |                                   |
| the OOM killer acted, whichever process it took, init included     | MEMORY_LIMIT                      |
| the exit status is unknown, the sandbox broke                      | RUNTIME_FAILED                    |
| SIGSYS                                                             | VIOLATION (seccomp)               |
| SIGXCPU or SIGKILL, and the CPU time is used up or unmeasured      | CPU_TIMEOUT (SIGKILL: measured)   |
| any other signal                                                   | SIGNALED                          |
| an exit code                                                       | EXITED                            |
"""

from dataclasses import dataclass
from signal import SIGKILL, SIGSYS, SIGXCPU, SIGXFSZ

from sandboxd.model import EndReason, ExitStatus, LimitId, Limits, SandboxUsage, Violation

# The kernel checks RLIMIT_CPU on ticks and counts precisely elsewhere, so the two differ a little.
CPU_TOLERANCE = 0.9


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything known about an execution that is over. `status` None: nobody saw how the main process ended."""

    asked: EndReason | None
    status: ExitStatus | None
    usage: SandboxUsage
    limits: Limits
    reached: tuple[LimitId, ...]  # what init saw reached
    stdout_bytes: int
    stderr_bytes: int
    files_limited: bool = False


def end_reason(facts: Facts) -> EndReason:
    if facts.asked is not None:
        return facts.asked
    if facts.usage.oom_kills > 0:
        return EndReason.MEMORY_LIMIT
    if facts.status is None:
        return EndReason.RUNTIME_FAILED
    if facts.status.signal is None:
        return EndReason.EXITED
    if facts.status.signal == SIGSYS:
        return EndReason.VIOLATION
    if facts.status.signal in (SIGXCPU, SIGKILL) and _cpu_used_up(facts):
        return EndReason.CPU_TIMEOUT
    return EndReason.SIGNALED


def limits_hit(facts: Facts, ended_by: EndReason) -> tuple[LimitId, ...]:
    """Limits that the program met and survived, in the order of `LimitId`."""
    hit = set(facts.reached)
    usage, limits = facts.usage, facts.limits
    if usage.pids_denied > 0:
        hit.add(LimitId.PIDS)
    if usage.cpu_throttled > 0:
        hit.add(LimitId.CPUS)
    if facts.status is not None and facts.status.signal == SIGXFSZ:
        hit.add(LimitId.FILE_SIZE)
    if facts.stdout_bytes > limits.stdout_bytes:
        hit.add(LimitId.STDOUT)
    if facts.stderr_bytes > limits.stderr_bytes:
        hit.add(LimitId.STDERR)
    if facts.stdout_bytes + facts.stderr_bytes > limits.output_bytes and ended_by is not EndReason.OUTPUT_LIMIT:
        hit.add(LimitId.OUTPUT)
    if facts.files_limited:
        hit.add(LimitId.OUTPUT_FILES)
    return tuple(limit for limit in LimitId if limit in hit)


def violations(ended_by: EndReason) -> tuple[Violation, ...]:
    if ended_by is not EndReason.VIOLATION:
        return ()
    return (Violation("seccomp", "SIGSYS", "killed at a system call that its filter does not let pass"),)


def message_for_agent(ended_by: EndReason, status: ExitStatus | None, limits: Limits) -> str:
    """One or two sentences for a model: what happened and what may help; empty if the program succeeded.

    Nothing in it comes from the program.
    """
    match ended_by:
        case EndReason.EXITED:
            code = status.exit_code if status is not None else None
            return "" if code == 0 else f"The program ended with exit code {code}."
        case EndReason.SIGNALED:
            return f"The program was ended by signal {status.signal if status is not None else None}."
        case EndReason.WALL_TIMEOUT:
            return f"The program was stopped after {_seconds(limits.wall_seconds)}. Do less work per run."
        case EndReason.IDLE_TIMEOUT:
            return f"The program was stopped: it printed nothing for {_seconds(limits.idle_seconds)}."
        case EndReason.CPU_TIMEOUT:
            return f"The program was stopped after {_seconds(limits.cpu_seconds)} of CPU time. Do less work per run."
        case EndReason.MEMORY_LIMIT:
            return f"The program was stopped: it needed more than {_size(limits.memory_bytes)} of memory."
        case EndReason.OUTPUT_LIMIT:
            return f"The program was stopped: it printed more than {_size(limits.output_bytes)}. Print less."
        case EndReason.POLICY_DENIED:
            return "Policy does not allow this."
        case EndReason.VIOLATION:
            return "The program was stopped at an operation that the sandbox forbids. Do not try it again."
        case EndReason.CANCELLED:
            return "The run was cancelled."
        case EndReason.KILLED:
            return "The run was killed by an operator."
        case EndReason.NODE_SHUTDOWN:
            return "The run was stopped because the node is shutting down. Try again."
        case EndReason.RUNTIME_FAILED:
            return "The sandbox failed; this is no fault of the program. Try again."


def cpu_seconds(usage: SandboxUsage) -> float:
    """User and system time together, -1 where it is not measured."""
    if usage.cpu_user_seconds < 0 or usage.cpu_system_seconds < 0:
        return -1.0
    return usage.cpu_user_seconds + usage.cpu_system_seconds


def _cpu_used_up(facts: Facts) -> bool:
    used = cpu_seconds(facts.usage)
    if used < 0:
        return facts.status is not None and facts.status.signal == SIGXCPU
    return used >= facts.limits.cpu_seconds * CPU_TOLERANCE


def _seconds(number: float) -> str:
    return "1 second" if number == 1 else f"{number:g} seconds"


def _size(count: int) -> str:
    if count >= 1 << 20:
        return f"{count / (1 << 20):.4g} MiB"
    return f"{count / 1024:.4g} KiB"
