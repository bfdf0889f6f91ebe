"""The registry of executions on this node: what runs, what ended lately, and what it printed.

Ended ones are kept up to a number and a sum of bytes, oldest dropped first. A foreign id and an unknown id get the same
answer. Filled by `execution`; read by `rpc` for GetExecution, ps, logs and kill, and by `daemon` when the node drains.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from sandboxd.errors import NotFound, PolicyDenied
from sandboxd.model import OPERATOR, Caller, Chunk, EndReason, EnforcementReport, Outcome, Stream
from sandboxd.suspension import Suspension

RETAINED_PER_STREAM_BYTES = 1024 * 1024


class ExecutionState(StrEnum):
    PREPARING = "preparing"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """One execution as of now. Times are seconds since the epoch; `outcome` holds no files, they went to the caller."""

    execution_id: str
    sandbox_id: str
    tenant: str
    subject: str
    profile: str
    command: str
    labels: tuple[tuple[str, str], ...]
    requested_at: float = 0.0  # set by the registry
    state: ExecutionState = ExecutionState.PREPARING
    started_at: float | None = None
    ended_at: float | None = None
    report: EnforcementReport | None = None
    outcome: Outcome | None = None
    frozen: bool = False  # this and `held` are set by the registry as it is read: they come and go while it lives
    held: bool = False


class Running(Protocol):
    """What can be done to an execution that has not ended."""

    @property
    def suspension(self) -> Suspension | None:
        """Of its sandbox; None until that is launched."""

    def end(self, reason: EndReason) -> None:
        """Ask for its end; the first reason given stays."""

    async def signal(self, signum: int) -> None:
        """Send a signal to its process group; nothing happens if it does not run yet or any more."""


@dataclass(slots=True)
class _Entry:
    record: ExecutionRecord
    running: Running | None
    kept: dict[Stream, bytearray] = field(default_factory=lambda: {stream: bytearray() for stream in Stream})

    def size(self) -> int:
        return sum(len(data) for data in self.kept.values())

    def now(self) -> ExecutionRecord:
        """Its record, with whether it stands still at this moment."""
        suspension = self.running.suspension if self.running is not None else None
        if suspension is None or not (suspension.frozen or suspension.held):
            return self.record
        return replace(self.record, frozen=suspension.frozen, held=suspension.held)


class Registry:
    """Bounded by `max_ended` executions and `max_bytes` of what they printed."""

    def __init__(self, max_ended: int, max_bytes: int, now: Callable[[], float]) -> None:
        self._max_ended = max_ended
        self._max_bytes = max_bytes
        self._now = now
        self._live: dict[str, _Entry] = {}
        self._ended: dict[str, _Entry] = {}
        self._ended_bytes = 0

    # --- written by the line

    def add(self, record: ExecutionRecord, running: Running) -> None:
        self._live[record.execution_id] = _Entry(replace(record, requested_at=self._now()), running)

    def redacted(self, execution_id: str, command: str) -> None:
        """From now on its command is told so."""
        entry = self._live[execution_id]
        entry.record = replace(entry.record, command=command)

    def started(self, execution_id: str, report: EnforcementReport) -> None:
        entry = self._live[execution_id]
        entry.record = replace(entry.record, state=ExecutionState.RUNNING, started_at=self._now(), report=report)

    def keep(self, execution_id: str, chunk: Chunk) -> None:
        """Remember the head of each stream for `logs`."""
        kept = self._live[execution_id].kept[chunk.stream]
        if (room := RETAINED_PER_STREAM_BYTES - len(kept)) > 0:
            kept += chunk.data[:room]

    def ended(self, execution_id: str, outcome: Outcome) -> None:
        entry = self._live.pop(execution_id)
        entry.running = None
        entry.record = replace(
            entry.record, state=ExecutionState.ENDED, ended_at=self._now(), outcome=replace(outcome, files=())
        )
        self._ended[execution_id] = entry
        self._ended_bytes += entry.size()
        while len(self._ended) > self._max_ended or self._ended_bytes > self._max_bytes:
            self._ended_bytes -= self._ended.pop(next(iter(self._ended))).size()

    def forget(self, execution_id: str) -> None:
        """It never ran: nothing is retained, its caller got an error instead of an id."""
        self._live.pop(execution_id, None)

    # --- read and acted on by callers

    def list(self, caller: Caller) -> tuple[ExecutionRecord, ...]:
        """Every execution of the caller's that is known, oldest first, ended ones before living ones."""
        entries = (*self._ended.values(), *self._live.values())
        return tuple(entry.now() for entry in entries if _may_see(caller, entry.record))

    def get(self, execution_id: str, caller: Caller) -> ExecutionRecord:
        return self._entry(execution_id, caller).now()

    def logs(self, execution_id: str, caller: Caller) -> tuple[bytes, bytes]:
        """What it printed so far on stdout and stderr, each up to RETAINED_PER_STREAM_BYTES."""
        kept = self._entry(execution_id, caller).kept
        return bytes(kept[Stream.STDOUT]), bytes(kept[Stream.STDERR])

    async def kill(self, execution_id: str, signum: int | None, caller: Caller) -> None:
        """Send a signal, or with None kill the whole tree (it ends KILLED). One that has ended already is no error.

        What is kept as evidence only an operator ends: `PolicyDenied`.
        """
        running = self._entry(execution_id, caller).running
        if running is None:
            return
        if running.suspension is not None and running.suspension.held and OPERATOR not in caller.roles:
            raise PolicyDenied("the execution is quarantined; operators alone can end it", reason="quarantined")
        if signum is None:
            running.end(EndReason.KILLED)
        else:
            await running.signal(signum)

    # --- the node itself

    def known(self, matches: Callable[[ExecutionRecord], bool]) -> tuple[tuple[ExecutionRecord, Running | None], ...]:
        """Whoever's they are; without a Running where they have ended."""
        entries = (*self._ended.values(), *self._live.values())
        return tuple((entry.now(), entry.running) for entry in entries if matches(entry.record))

    @property
    def living(self) -> int:
        return len(self._live)

    def end_all(self, reason: EndReason) -> None:
        """The node goes down: every living execution is asked to end."""
        for entry in tuple(self._live.values()):
            if entry.running is not None:
                entry.running.end(reason)

    def _entry(self, execution_id: str, caller: Caller) -> _Entry:
        entry = self._live.get(execution_id) or self._ended.get(execution_id)
        if entry is None or not _may_see(caller, entry.record):
            raise NotFound(f"no execution {execution_id[:64]!r}; list shows the ones that are known")
        return entry


def _may_see(caller: Caller, record: ExecutionRecord) -> bool:
    """Its own, or as an operator every one of its tenant."""
    return caller.tenant == record.tenant and (caller.subject == record.subject or OPERATOR in caller.roles)
