"""What a node tells about itself, its profiles and its executions: frozen data, no I/O.

Given back by `capabilities`, `profiles`, `profile`, `executions` and `logs` of both clients.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sandboxd.client.model import EnforcementRow, Result


@dataclass(frozen=True, slots=True)
class RuntimeCapabilities:
    """What one runtime can enforce on that node, independent of any profile."""

    isolation: str
    mode: str
    rows: tuple[EnforcementRow, ...]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Version, kernel and privilege of a node, and what each of its runtimes can enforce."""

    version: str
    api_versions: tuple[str, ...]
    node: str
    kernel: str
    mode: str
    policy_revision: str
    runtimes: tuple[RuntimeCapabilities, ...]


class Level(StrEnum):
    """How strictly a profile asks for a guarantee."""

    REQUIRE = "require"
    BEST_EFFORT = "best_effort"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A language of a profile and its command line, where `{file}` stands for the source file."""

    language: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as resolved by the node. `spec_json` is empty in a list."""

    name: str
    description: str
    digest: str
    isolation: str
    limits: tuple[tuple[str, float], ...]
    network: str
    env: tuple[tuple[str, str], ...]
    env_allowed: tuple[str, ...]
    cwd: str
    interpreters: tuple[Interpreter, ...]
    requirements: tuple[tuple[str, Level], ...]
    labels: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    spec_json: str


class ExecutionState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution, living or retained. `result` carries no output and no files; the output is behind `logs`.

    `frozen`: none of its programs runs until it is thawed. `held`: a quarantine keeps it, and only an operator ends it.
    """

    execution_id: str
    sandbox_id: str
    subject: str
    profile: str
    isolation: str
    command: str
    labels: tuple[tuple[str, str], ...]
    state: ExecutionState
    started_at: datetime | None
    ended_at: datetime | None
    result: Result | None
    frozen: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Logs:
    """The output that the node has kept of one execution."""

    stdout: bytes
    stderr: bytes
