"""Which executions an earlier daemon left open: asked for on the journal, never closed there.

Only reads. Called by `daemon` before it records its own start, which marks that everything older is closed.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from sandboxd.audit.line import LineDamaged, decode
from sandboxd.audit.segment import lines, segments
from sandboxd.event import DaemonStarted, ExecutionEnded, ExecutionRefused, ExecutionRequested
from sandboxd.model import EndReason

RESTARTED = "daemon_restarted"
_OPENS = ExecutionRequested.rule
_CLOSES = (ExecutionEnded.rule, ExecutionRefused.rule)
_MARK = DaemonStarted.rule
# Lines are canonical JSON, so a rule is found without parsing; tenant text cannot hold an unescaped quote.
_RULES = {rule: f'"rule":"{rule}"'.encode() for rule in (_OPENS, *_CLOSES, _MARK)}


@dataclass(frozen=True, slots=True)
class OpenExecution:
    """The ids that its closing event must carry."""

    tenant: str
    subject: str
    execution_id: str
    sandbox_id: str
    policy_revision: str
    trace_id: str


def open_executions(journal: Path) -> tuple[OpenExecution, ...]:
    """In the order of their requests, since the last daemon that started properly. OSError if it cannot be read."""
    if not journal.is_dir():
        return ()
    newest_first: list[dict[str, OpenExecution | None]] = []
    for segment in reversed(segments(journal)):
        found, marked = _read(segment.path)
        newest_first.append(found)
        if marked:
            break
    still_open: dict[str, OpenExecution] = {}
    for found in reversed(newest_first):
        for execution_id, execution in found.items():
            if execution is None:
                still_open.pop(execution_id, None)
            else:
                still_open[execution_id] = execution
    return tuple(still_open.values())


def closing_event(execution: OpenExecution) -> ExecutionEnded:
    """Nobody saw how it ended, and its sandbox is gone with the daemon that supervised it."""
    return ExecutionEnded(
        execution.tenant,
        execution.subject,
        execution.execution_id,
        execution.sandbox_id,
        execution.policy_revision,
        execution.trace_id,
        end_reason=EndReason.RUNTIME_FAILED,
        exit_code=None,
        signal=None,
        wall_seconds=-1.0,
        cpu_seconds=-1.0,
        peak_memory_bytes=-1,
        stdout_bytes=-1,
        stderr_bytes=-1,
        limits_hit=(),
        violations=(),
        detail=RESTARTED,
    )


def _read(path: Path) -> tuple[dict[str, OpenExecution | None], bool]:
    """Of one segment: executions left open, or closed (None) that were opened earlier; and whether a start is in it."""
    found: dict[str, OpenExecution | None] = {}
    marked = False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for _, line in lines(descriptor):
            if not any(rule in line for rule in _RULES.values()):
                continue
            record = decode(line)
            ids = dict(record.ids)
            if record.rule == _MARK:
                found, marked = {}, True
            elif record.rule == _OPENS:
                found[ids["execution_id"]] = OpenExecution(
                    ids["tenant"],
                    ids["subject"],
                    ids["execution_id"],
                    ids["sandbox_id"],
                    ids["policy_revision"],
                    ids["trace_id"],
                )
            elif found.pop(ids["execution_id"], None) is None:
                found[ids["execution_id"]] = None
    except LineDamaged as error:
        raise OSError(f"{str(path)!r} has a damaged record: {error}") from error
    finally:
        os.close(descriptor)
    return found, marked
