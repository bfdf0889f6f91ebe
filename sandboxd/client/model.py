"""What the SDK takes and gives back: frozen data with no behaviour beyond small conveniences, and no I/O.

Mirrors the messages of `sandboxd.v1`; imports neither them nor the daemon. Enum members that a newer daemon adds come
out as UNKNOWN, so that an older client keeps working.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict


class EndReason(StrEnum):
    """What ended an execution."""

    EXITED = "EXITED"
    SIGNALED = "SIGNALED"
    WALL_TIMEOUT = "WALL_TIMEOUT"
    IDLE_TIMEOUT = "IDLE_TIMEOUT"
    CPU_TIMEOUT = "CPU_TIMEOUT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    POLICY_DENIED = "POLICY_DENIED"
    VIOLATION = "VIOLATION"
    CANCELLED = "CANCELLED"
    KILLED = "KILLED"
    NODE_SHUTDOWN = "NODE_SHUTDOWN"
    RUNTIME_FAILED = "RUNTIME_FAILED"
    UNKNOWN = "UNKNOWN"


class State(StrEnum):
    """How far a guarantee holds."""

    ENFORCED = "enforced"
    DEGRADED = "degraded"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Code:
    """Source text for one of the profile's interpreters."""

    source: str
    language: str = "python"


@dataclass(frozen=True, slots=True)
class InputFile:
    """Content of a file for the workspace, where its mode matters; plain bytes mean mode 0644."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent on whose behalf the caller asks: data for policy and audit, never an identity."""

    name: str = ""
    session_id: str = ""
    tool_name: str = ""
    tool_use_id: str = ""


class Options(TypedDict, total=False):
    """Keyword options of `run`, `run_code` and `execute`. Limits and the rest can only tighten the profile."""

    profile: str
    """name of a profile of the node; its default is `default`"""
    stdin: bytes
    env: Mapping[str, str]
    cwd: str
    """absolute inside the sandbox, or relative to the workspace"""
    files: Mapping[str, bytes | InputFile]
    """path in the workspace → content, put there before the program starts"""
    collect: Sequence[str]
    """globs relative to the workspace; what matches comes back in `Result.files`"""
    limits: Mapping[str, float]
    """e.g. `{"memory_bytes": 64 << 20, "wall_seconds": 5}`; what is set here is required, not best effort"""
    network: str
    """`none` or `loopback`"""
    labels: Mapping[str, str]
    isolation: str
    """`process`, `gvisor` or `kata`"""
    agent: Agent
    traceparent: str
    """W3C trace context"""
    timeout_seconds: float
    """deadline of the call; when it passes the whole process tree is killed and `DeadlineExceeded` is raised"""


@dataclass(frozen=True, slots=True)
class EnforcementRow:
    """One guarantee, how far it holds, the layers that carry it, and why it is not more than that."""

    guarantee: str
    state: State
    layers: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What enforces what; `warnings` has a sentence for each thing that makes this sandbox weaker."""

    runtime: str = ""
    rows: tuple[EnforcementRow, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """First event of an execution."""

    execution_id: str
    sandbox_id: str
    profile: str
    profile_digest: str
    policy_revision: str
    enforcement: Enforcement


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output; `offset` counts the bytes of that stream before it."""

    stream: Stream
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """What an execution used; None where the node cannot measure it."""

    wall_seconds: float = 0.0
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    peak_memory_bytes: int | None = None
    peak_pids: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """Something the program tried that was refused or that ended it, and the layer which saw it."""

    layer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A collected file; `path` is relative to the workspace and chosen by the program: do not open it unchecked."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that matched `collect` and was not returned, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Redaction:
    """How many matches of a pattern policy had taken out of output and files; `[redacted:PATTERN]` stands there."""

    pattern: str
    matches: int


@dataclass(frozen=True, slots=True)
class Result:
    """Last event of an execution. `exit_code` or `signal` is set if the program ran to an end of its own.

    From `execute` its `stdout` and `stderr` are empty, since they came as chunks; `run` and `run_code` fill them.
    """

    execution_id: str
    end_reason: EndReason
    exit_code: int | None
    signal: int | None
    usage: Usage
    enforcement: Enforcement = field(default_factory=Enforcement)
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    limits_hit: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    files: tuple[OutputFile, ...] = ()
    files_skipped: tuple[SkippedFile, ...] = ()
    message_for_agent: str = ""
    redactions: tuple[Redaction, ...] = ()

    @property
    def ok(self) -> bool:
        """The program ended by itself with exit code 0."""
        return self.end_reason is EndReason.EXITED and self.exit_code == 0


Event = Accepted | Chunk | Result
