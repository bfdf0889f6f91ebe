"""The exit code of `sandboxctl run`, and the one line it says when something other than the program ended it."""

import signal
from typing import assert_never

from sandboxd.client.model import EndReason, Result

TIMED_OUT = 124
FAILED = 125
KILLED = 128 + signal.SIGKILL
INTERRUPTED = 128 + signal.SIGINT

EXIT_CODES_HELP = (
    "Exit code: the program's own; 128+N if signal N ended it; 124 if a wall, idle or CPU time limit did; 137 if the "
    "memory or output limit did or it was killed; 125 if sandboxd refused or failed (the reason is on stderr); 130 "
    "after Ctrl-C, 143 after SIGTERM, 141 if nobody reads the output: in these three the program is killed."
)


def exit_code(result: Result) -> int:
    match result.end_reason:
        case EndReason.EXITED if result.exit_code is not None:
            return result.exit_code
        case EndReason.WALL_TIMEOUT | EndReason.IDLE_TIMEOUT | EndReason.CPU_TIMEOUT:
            return TIMED_OUT
        case EndReason.MEMORY_LIMIT | EndReason.OUTPUT_LIMIT:
            return KILLED
        case EndReason.SIGNALED | EndReason.VIOLATION | EndReason.KILLED:
            return 128 + result.signal if result.signal else KILLED
        case EndReason.CANCELLED:
            return INTERRUPTED
        case (
            EndReason.EXITED
            | EndReason.POLICY_DENIED
            | EndReason.NODE_SHUTDOWN
            | EndReason.RUNTIME_FAILED
            | EndReason.UNKNOWN
        ):
            return FAILED
        case _:
            assert_never(result.end_reason)


def notices(result: Result) -> list[str]:
    """What the user must know beyond the exit code; empty after an ordinary end."""
    said = []
    if result.end_reason not in (EndReason.EXITED, EndReason.SIGNALED):
        why = result.message_for_agent or "the whole process tree was killed"
        said.append(f"{result.end_reason}: {why}")
    usage = result.usage
    if result.stdout_truncated:
        said.append(f"stdout is cut: the program wrote {usage.stdout_bytes} bytes, more than are kept")
    if result.stderr_truncated:
        said.append(f"stderr is cut: the program wrote {usage.stderr_bytes} bytes, more than are kept")
    said.extend(f"not collected: {skipped.path!r}: {skipped.reason}" for skipped in result.files_skipped)
    return said
