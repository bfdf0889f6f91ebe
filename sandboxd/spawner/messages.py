"""What daemon, spawner and init say to each other: the closed set, by who says it to whom.

Data alone; `wire` writes, reads and sends it. Standard library only.
"""

from dataclasses import dataclass

# --- spawner → daemon


@dataclass(frozen=True, slots=True)
class Hello:
    """First message to each daemon; `living` Adopt messages follow.

    `facts` is the probe's result as (guarantee, state, layers, reason) rows, layers joined by commas.
    """

    mode: str
    kernel: str
    facts: tuple[tuple[str, str, str, str], ...]
    templates: tuple[tuple[str, str], ...]  # name, digest
    living: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """After Hello: a sandbox that lived under an earlier daemon; descriptors as in Launched."""

    sandbox_id: str
    host_uid: int
    fd_names: tuple[str, ...]
    at_birth: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Offered:
    """A blank that waits for its launch, which must name it; descriptors as in Launched.

    It may become a sandbox of any of `templates` (digests). The numbers are what it holds already: for a launch that
    asks for the same nothing is to be done any more. `memory_bytes` 0: it cannot hold those of its template.
    """

    offer: int
    templates: tuple[str, ...]
    host_uid: int
    fd_names: tuple[str, ...]
    at_birth: tuple[tuple[str, float], ...]
    memory_bytes: int
    pids: int
    cpus: float
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The spawner wants that blank back: answered by Returned, unless a Launch that names it was sent before."""

    offer: int


@dataclass(frozen=True, slots=True)
class Launched:
    """Answer to Launch. Descriptors in the order of `fd_names`: pidfd, init, then counters, then `listen:PORT`s.

    None for a blank that was offered: they came with the offer.
    """

    request_id: int
    sandbox_id: str
    host_uid: int
    fd_names: tuple[str, ...]
    at_birth: tuple[tuple[str, float], ...]  # what the counters stood at before anything of the tenant's was in it


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer to any request: `reason` is template_unknown, above_ceiling, overloaded, launch_failed, reload_failed,
    sandbox_gone, freeze_failed or examine_failed.
    """

    request_id: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SandboxEnded:
    """Init of a sandbox died (killed or not) and all of it is gone; `usage` holds its last counters since birth."""

    sandbox_id: str
    wait_status: int
    usage: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Frozen:
    """Answer to Freeze and Thaw: `state` is frozen (none of it runs any more), freezing (ask again) or thawed."""

    request_id: int
    state: str


@dataclass(frozen=True, slots=True)
class Examined:
    """Answer to Examine; descriptor: where what is found can be read, as `examine` writes it."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Templates were compiled again. `request_id` 0: the service manager asked (SIGHUP), the daemon reloads too."""

    request_id: int
    templates: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """The node goes down: refuse new work, end, exit."""

    grace_seconds: float


# --- daemon → spawner


@dataclass(frozen=True, slots=True)
class Launch:
    """Make a sandbox: of the blank of that `offer`, or, if it is 0, of one that is born for it.

    Nobody waits for the answer if `request_id` is 0: that it failed is then told by SandboxEnded.
    """

    request_id: int
    offer: int
    sandbox_id: str
    template: str
    network: str
    memory_bytes: int
    pids: int
    cpus: float
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int
    io_read_bytes_per_second: int
    io_write_bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Returned:
    """To Withdrawn: the daemon has let go of it, and will not name it."""

    offer: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a sandbox whole; answered by SandboxEnded. Unknown ids are ignored (it has ended already)."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """Have the cgroup of a sandbox stop, its init with it; answered by Frozen."""

    request_id: int
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let it go on; answered by Frozen."""

    request_id: int
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class Examine:
    """Look into a sandbox, frozen or not; at most so many bytes of its workspace are taken."""

    request_id: int
    sandbox_id: str
    workspace_bytes: int


@dataclass(frozen=True, slots=True)
class Reload:
    request_id: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The daemon serves; the spawner tells the service manager."""

    status: str


# --- spawner → init


@dataclass(frozen=True, slots=True)
class Assign:
    """Turns a blank init into that of a sandbox; descriptor: its end of the daemon's control socket.

    `memory_bytes`, `pids`: what no cgroup holds here, so each execution must have it as an rlimit, or less. Else 0.
    """

    template: str
    memory_bytes: int
    pids: int
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int


# --- daemon → init


@dataclass(frozen=True, slots=True)
class Execute:
    """Start a program; descriptors: stdin, stdout, stderr, each a pipe without a name, and init takes nothing else.

    Numbers are rlimits; `slot` picks the uid in the range.
    """

    execution_id: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    slot: int
    open_files: int
    file_size_bytes: int
    cpu_seconds: float
    memory_bytes: int  # 0: the cgroup does it; else RLIMIT_DATA and RLIMIT_AS
    pids: int  # 0: the cgroup does it; else RLIMIT_NPROC


@dataclass(frozen=True, slots=True)
class Put:
    """Write a file into the workspace as the user of `slot`; descriptor: the content."""

    request_id: int
    path: str
    mode: int
    slot: int


@dataclass(frozen=True, slots=True)
class Collect:
    """Open the regular files that match; answered by FileOpened for each and one Answer."""

    request_id: int
    patterns: tuple[str, ...]
    max_files: int
    max_bytes: int
    slot: int


@dataclass(frozen=True, slots=True)
class Signal:
    execution_id: str
    signum: int


@dataclass(frozen=True, slots=True)
class Answered:
    """To Asked: `errno` 0 lets the call be made."""

    request_id: int
    errno: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Kill every process but init itself; answered by Answer once none is left."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Where no cgroup can be frozen: stop every process but init itself, answered by Answer once they stand still.

    Until Resume, one that goes on all the same ends the sandbox.
    """

    request_id: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Let them go on; answered by Answer."""

    request_id: int


# --- init → daemon


@dataclass(frozen=True, slots=True)
class Started:
    execution_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class ExecFailed:
    """The program never ran: the failed step (a system call's name), its errno, and what it concerned."""

    execution_id: str
    step: str
    errno: int
    detail: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The main process ended. Numbers are its own and its waited-for children's, from wait4(2)."""

    execution_id: str
    wait_status: int
    cpu_user_seconds: float
    cpu_system_seconds: float
    max_rss_bytes: int
    limits_reached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileOpened:
    """Descriptor: the file, read-only."""

    request_id: int
    path: str
    size: int
    mode: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Ends a request to init. `errno` 0 is success; `skipped` pairs a path with why it did not come.

    One with `request_id` 0 tells why the sandbox cannot be completed; then init is gone.
    """

    request_id: int
    errno: int
    message: str
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A process is about to become another program, and waits for Answered."""

    request_id: int
    execution_id: str
    pid: int
    parent_pid: int
    image: str
    argv: tuple[str, ...]
    cwd: str


@dataclass(frozen=True, slots=True)
class CallRefused:
    """`count` equal calls failed with that errno, the last of them by this process, and nobody was asked."""

    execution_id: str
    number: int
    pid: int
    errno: int
    reason: str  # profile: it lists the call; else why an exec could not be asked about
    count: int


Message = (
    Hello | Adopt | Offered | Withdrawn | Launched | Refused | SandboxEnded | Frozen | Examined | Reloaded | Drain
    | Launch | Returned | Kill | Freeze | Thaw | Examine | Reload | Ready | Assign
    | Execute | Put | Collect | Signal | Answered | Stop | Halt | Resume
    | Started | ExecFailed | Exited | FileOpened | Answer | Asked | CallRefused
)  # fmt: skip
