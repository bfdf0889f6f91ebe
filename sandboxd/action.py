"""The actions that policy decides, a closed union: what each is about, with nothing in it that a policy must not see.

Contents never travel to policy: code, files and secrets are there by digest, size or name. Frozen data; made by whoever
is about to act, put to policy by `gate`. Their JSON forms are in `policy.document`, published in `policies/schemas/`.
"""

from dataclasses import dataclass
from typing import ClassVar

from sandboxd.finding import CodeFacts, Finding
from sandboxd.model import Agent, Isolation, Limits

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExecutionStart:
    """Run a program in a fresh sandbox. `code_sha256` is empty for an argv program.

    `findings` and `code` are of the source, also of such as stands in an argument; `code` is null if there is none.
    """

    type: ClassVar[str] = "execution.start"

    argv: tuple[str, ...]
    language: str
    code_sha256: str
    findings: tuple[Finding, ...]
    code: CodeFacts | None
    env_names: tuple[str, ...]
    files: tuple[str, ...]
    stdin_bytes: int
    isolation: Isolation
    network: str
    limits: Limits
    labels: Pairs
    agent: Agent


@dataclass(frozen=True, slots=True)
class ProcessExec:
    """A process inside a sandbox is about to become another program. `image` is the file that the kernel would run."""

    type: ClassVar[str] = "process.exec"

    image: str
    argv: tuple[str, ...]
    cwd: str
    pid: int  # inside the sandbox
    parent_pid: int


@dataclass(frozen=True, slots=True)
class FilePut:
    """Write a file into a sandbox. Paths of files are absolute, inside of it."""

    type: ClassVar[str] = "file.put"

    path: str
    mode: int
    bytes: int
    sha256: str  # empty while the content is still to come


@dataclass(frozen=True, slots=True)
class FileGet:
    type: ClassVar[str] = "file.get"

    path: str


@dataclass(frozen=True, slots=True)
class FileList:
    type: ClassVar[str] = "file.list"

    path: str
    recursive: bool


@dataclass(frozen=True, slots=True)
class FileDelete:
    type: ClassVar[str] = "file.delete"

    path: str
    recursive: bool


@dataclass(frozen=True, slots=True)
class SandboxCreate:
    """Make a sandbox that outlives one execution."""

    type: ClassVar[str] = "sandbox.create"

    isolation: Isolation
    network: str
    limits: Limits
    labels: Pairs
    ttl_seconds: float
    agent: Agent


@dataclass(frozen=True, slots=True)
class SandboxDelete:
    type: ClassVar[str] = "sandbox.delete"


@dataclass(frozen=True, slots=True)
class SandboxPause:
    type: ClassVar[str] = "sandbox.pause"


@dataclass(frozen=True, slots=True)
class SandboxResume:
    type: ClassVar[str] = "sandbox.resume"


@dataclass(frozen=True, slots=True)
class SandboxSnapshot:
    type: ClassVar[str] = "sandbox.snapshot"

    name: str


@dataclass(frozen=True, slots=True)
class SandboxRestore:
    """Give a sandbox the contents of a snapshot; not `in_place`: a new one."""

    type: ClassVar[str] = "sandbox.restore"

    snapshot_id: str
    in_place: bool


@dataclass(frozen=True, slots=True)
class NetConnect:
    """Connect from inside a sandbox. `host` is the name that was asked for, empty if only an address is known."""

    type: ClassVar[str] = "net.connect"

    protocol: str  # tcp or udp
    host: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class SecretUse:
    """Have a secret put into a request on the sandbox's behalf; the sandbox never has it."""

    type: ClassVar[str] = "secret.use"

    name: str
    host: str  # whom it would be sent to
    port: int


@dataclass(frozen=True, slots=True)
class ProfileUse:
    """Run anything under the profile of the question. `overrides` names what the request tightens."""

    type: ClassVar[str] = "profile.use"

    isolation: Isolation
    network: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApprovalDecide:
    """Approve or deny what policy left to people. `requester` is whom the caller decides about."""

    type: ClassVar[str] = "approval.decide"

    approval_id: str
    approve: bool
    action_type: str
    action_sha256: str
    requester: str


Action = (
    ExecutionStart | ProcessExec
    | FilePut | FileGet | FileList | FileDelete
    | SandboxCreate | SandboxDelete | SandboxPause | SandboxResume | SandboxSnapshot | SandboxRestore
    | NetConnect | SecretUse | ProfileUse | ApprovalDecide
)  # fmt: skip
