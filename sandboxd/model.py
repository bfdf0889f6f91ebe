"""The nouns that travel along the straight line of one execution: frozen data, no behaviour, no I/O.

Never imports anything of sandboxd. Used by every other module of the daemon; the spawner has its own (`spawner.wire`).
"""

from dataclasses import dataclass, field
from enum import StrEnum

LOCAL_TENANT = "local"
OPERATOR = "operator"  # the role of who runs the node: sees and ends the executions of all


class Isolation(StrEnum):
    """The runtime that confines a sandbox."""

    PROCESS = "process"
    GVISOR = "gvisor"
    KATA = "kata"


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class EndReason(StrEnum):
    """What ended an execution. Limits that a program survives are in `Outcome.limits_hit` instead."""

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


class LimitId(StrEnum):
    """Names of limits in `limits_hit`."""

    WALL = "wall"
    IDLE = "idle"
    CPU_TIME = "cpu_time"
    CPUS = "cpus"
    MEMORY = "memory"
    PIDS = "pids"
    OPEN_FILES = "open_files"
    FILE_SIZE = "file_size"
    WORKSPACE_BYTES = "workspace_bytes"
    WORKSPACE_INODES = "workspace_inodes"
    TMP_BYTES = "tmp_bytes"
    TMP_INODES = "tmp_inodes"
    STDOUT = "stdout"
    STDERR = "stderr"
    OUTPUT = "output"
    OUTPUT_FILES = "output_files"


class Guarantee(StrEnum):
    """What a sandbox promises. The same ids stand in a runtime's `probe()`, a profile's `enforcement`, the report."""

    NAMESPACE_USER = "namespace.user"
    NAMESPACE_PID = "namespace.pid"
    NAMESPACE_MOUNT = "namespace.mount"
    NAMESPACE_NET = "namespace.net"
    NAMESPACE_IPC = "namespace.ipc"
    NAMESPACE_UTS = "namespace.uts"
    NAMESPACE_CGROUP = "namespace.cgroup"
    ID_UNPRIVILEGED = "id.unprivileged"  # the payload's host uid is not 0
    ID_PER_SANDBOX = "id.per_sandbox"  # no other sandbox, and no person, has that host uid
    FILESYSTEM_ROOT = "filesystem.root"  # pivot_root into a root built by allowlist
    FILESYSTEM_PROC = "filesystem.proc"
    FILESYSTEM_DEV = "filesystem.dev"
    FILESYSTEM_NOEXEC = "filesystem.noexec"  # no writable mount can execute
    FILESYSTEM_SOCKETS = "filesystem.sockets"  # no socket and no named pipe of the host can be written to
    EXEC_MEMFD = "exec.memfd"  # anonymous memory files cannot be executed
    LANDLOCK_FILES = "landlock.files"
    LANDLOCK_EXEC = "landlock.exec"
    LANDLOCK_SCOPES = "landlock.scopes"  # signals and abstract unix sockets
    SECCOMP_ALLOWLIST = "seccomp.allowlist"
    MEDIATION_EXEC = "mediation.exec"  # policy is asked before a program becomes another; what it names may change then
    MEDIATION_REPORT = "mediation.report"  # refusals of the system calls that the profile lists are on record
    CAPABILITIES_NONE = "capabilities.none"
    NO_NEW_PRIVS = "no_new_privs"
    NETWORK_NONE = "network.none"
    KILL_TREE = "kill.tree"
    LIMIT_WALL = "limit.wall"
    LIMIT_IDLE = "limit.idle"
    LIMIT_CPU_TIME = "limit.cpu_time"
    LIMIT_CPUS = "limit.cpus"
    LIMIT_MEMORY = "limit.memory"
    LIMIT_SWAP = "limit.swap"
    LIMIT_PIDS = "limit.pids"
    LIMIT_OPEN_FILES = "limit.open_files"
    LIMIT_FILE_SIZE = "limit.file_size"
    LIMIT_WORKSPACE = "limit.workspace"
    LIMIT_TMP = "limit.tmp"
    LIMIT_OUTPUT = "limit.output"
    LIMIT_IO = "limit.io"
    SANDBOX_FREEZE = "sandbox.freeze"  # an operator can have it stand still; of the node, and in no run's report


class State(StrEnum):
    """How far a guarantee holds."""

    ENFORCED = "enforced"
    DEGRADED = "degraded"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class EnforcementRow:
    """One guarantee: how far it holds, which layers carry it, and why it is not more (empty when enforced)."""

    guarantee: Guarantee
    state: State
    layers: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EnforcementReport:
    """What enforces what in one sandbox; `warnings` has one sentence for each thing that makes it weaker."""

    runtime: Isolation
    rows: tuple[EnforcementRow, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `subject` is `uid:N` for a unix peer until identities come; root and the daemon's uid are OPERATOR."""

    tenant: str
    subject: str
    roles: tuple[str, ...]
    method: str


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent on whose behalf the caller asks, as the caller tells it: data for policy and audit, no identity."""

    name: str = ""
    session_id: str = ""
    tool_name: str = ""
    tool_use_id: str = ""


@dataclass(frozen=True, slots=True)
class ArgvProgram:
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CodeProgram:
    """Source that one of the profile's `interpreters` runs; `language` is the interpreter's name there."""

    language: str
    source: str


Program = ArgvProgram | CodeProgram


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file put into the workspace before the program starts; `path` is relative to the workspace."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file collected from the workspace after the program ended; `path` is relative to the workspace."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of one execution, resolved. Zero in `idle_seconds`, `io_*` means that this limit is off."""

    wall_seconds: float
    idle_seconds: float  # longest time without a byte of output
    cpu_seconds: float  # CPU time of the whole tree
    cpus: float  # share of CPUs, 1.0 is one CPU
    memory_bytes: int
    pids: int
    open_files: int
    file_size_bytes: int
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int
    stdout_bytes: int  # kept; more is counted, dropped and flagged
    stderr_bytes: int
    output_bytes: int  # produced on both streams together; more ends the execution with OUTPUT_LIMIT
    output_files_bytes: int  # all collected files together
    output_files: int
    io_read_bytes_per_second: int
    io_write_bytes_per_second: int


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """One Execute as the caller sent it, validated in shape only. `limits` holds overrides by `Limits` field name."""

    program: Program
    profile: str = "default"
    stdin: bytes = b""
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""  # absolute inside the sandbox, or relative to the workspace; empty is the workspace
    files: tuple[InputFile, ...] = ()
    collect: tuple[str, ...] = ()  # globs relative to the workspace
    limits: tuple[tuple[str, float], ...] = ()
    network: str = ""  # empty keeps the profile's mode
    labels: tuple[tuple[str, str], ...] = ()
    isolation: Isolation | None = None
    agent: Agent = Agent()
    sandbox_id: str = ""
    context_id: str = ""
    idempotency_key: str = ""
    detach: bool = False
    workspace_mode: str = ""
    traceparent: str = ""
    tracestate: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an execution used. -1 where this node cannot measure it."""

    wall_seconds: float
    cpu_user_seconds: float = -1.0
    cpu_system_seconds: float = -1.0
    peak_memory_bytes: int = -1
    peak_pids: int = -1
    io_read_bytes: int = -1
    io_write_bytes: int = -1
    stdout_bytes: int = 0  # produced, kept or not
    stderr_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output. `offset` counts the bytes of that stream before it."""

    stream: Stream
    offset: int
    data: bytes
    mime_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Violation:
    """Something the program tried that was refused or that ended it, and the layer which saw it."""

    layer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """First item of an Execute stream."""

    execution_id: str
    sandbox_id: str
    profile: str
    profile_digest: str
    policy_revision: str
    report: EnforcementReport


@dataclass(frozen=True, slots=True)
class Outcome:
    """Last item of an Execute stream. Exactly one of `exit_code` and `signal` is set if the program ran to an end."""

    execution_id: str
    end_reason: EndReason
    exit_code: int | None
    signal: int | None
    usage: Usage
    limits_hit: tuple[LimitId, ...] = ()
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    violations: tuple[Violation, ...] = ()
    files: tuple[OutputFile, ...] = ()
    files_skipped: tuple[tuple[str, str], ...] = ()  # path, why
    message_for_agent: str = ""  # empty if all is well
    redactions: tuple[tuple[str, int], ...] = ()  # pattern, how many matches of it were taken out


class Verdict(StrEnum):
    ALLOW = "allow"
    WARN = "warn"
    DENY = "deny"
    ESCALATE = "escalate"
    TRANSFORM = "transform"


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Approval:
    """Who may approve an action (`role:NAME` or a subject; nobody named: any operator), how many of them must, and how
    long it may wait for them. A grant is good for as long again."""

    ttl_seconds: float
    approvers: tuple[str, ...]
    quorum: int = 1


@dataclass(frozen=True, slots=True)
class Obligations:
    """What a decision demands besides its verdict. It can only tighten; the gate checks that again."""

    limits: tuple[tuple[str, float], ...] = ()
    runtime_floor: Isolation | None = None
    redact: tuple[str, ...] = ()  # names of patterns that are taken out of what a program prints and leaves
    approval: Approval | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of policy to one action. `revision` names the bundle that gave it; never a bare bool."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    revision: str
    message_for_agent: str = ""
    obligations: Obligations = field(default_factory=Obligations)
    ttl_seconds: float = 0.0
    input_json: bytes = b""  # the document that was decided on, for the record: a decision can be replayed
    remembered: bool = False  # taken before, for an equal question, and still good
    approval_id: str = ""  # of the approval that it waits for, was refused by, or used up


@dataclass(frozen=True, slots=True)
class RuntimeCapabilities:
    """What a runtime can enforce on this node: one row per guarantee, as probed, independent of any profile."""

    isolation: Isolation
    mode: str  # root, rootless-subuid or rootless-single
    rows: tuple[EnforcementRow, ...]

    def row(self, guarantee: Guarantee) -> EnforcementRow:
        """The row of that guarantee; absent if the runtime does not know it."""
        for row in self.rows:
            if row.guarantee is guarantee:
                return row
        return EnforcementRow(guarantee, State.ABSENT, (), "this runtime does not offer it")


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """One sandbox to be made. `template_digest` names what the spawner compiled itself; the rest only tightens it."""

    sandbox_id: str
    isolation: Isolation
    template_digest: str
    limits: Limits
    network: str  # "none" or "loopback"


@dataclass(frozen=True, slots=True)
class ExecPlan:
    """One program to be started inside a sandbox. `env` is complete: nothing is inherited."""

    execution_id: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str  # absolute inside the sandbox
    limits: Limits
    stdin: bytes
    files: tuple[InputFile, ...]  # the code file of a CodeProgram is among them
    collect: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How the main process of an execution ended: exactly one of the two is set."""

    exit_code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class RefusedCalls:
    """`count` equal system calls of a sandbox that failed with that errno and about which policy was not asked.

    `reason` is profile where the profile lists the call under `report`; otherwise it says why an exec could not be
    asked about: unreadable, fault, too_large, foreign, daemon_busy or late. `pid` made the last of them.
    """

    number: int
    pid: int
    errno: int
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class SandboxUsage:
    """Counters of a sandbox's cgroup, -1 where this node has none. `*_denied` count refusals at a limit."""

    cpu_user_seconds: float = -1.0
    cpu_system_seconds: float = -1.0
    peak_memory_bytes: int = -1
    peak_pids: int = -1
    io_read_bytes: int = -1
    io_write_bytes: int = -1
    oom_kills: int = 0
    pids_denied: int = 0
    cpu_throttled: int = 0


@dataclass(frozen=True, slots=True)
class Collected:
    """Result of collecting output files: what came, and what did not with the reason."""

    files: tuple[OutputFile, ...]
    skipped: tuple[tuple[str, str], ...]
    limit_reached: bool
