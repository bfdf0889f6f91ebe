"""Audit events: one frozen dataclass each, `noun.past_verb`. Tenant text appears only in field values.

Never holds secrets or file contents; command lines and excerpts are cut to EXCERPT_CHARS and carry a digest.
Written by `audit.recorder` alone.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

EXCERPT_CHARS = 512
Priority = Literal["Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug"]


@dataclass(frozen=True, slots=True)
class Event:
    """Common to all. Ids are empty where an event concerns no execution or sandbox.

    A kind of which some events mean more than others says so in `raised`: their priority, and which they are.
    """

    rule: ClassVar[str]
    priority: ClassVar[Priority] = "Informational"
    raised: ClassVar[tuple[Priority, str] | None] = None
    keep: ClassVar[bool] = False  # tells what is over: if it cannot be written, it is written once the journal can be

    tenant: str
    subject: str
    execution_id: str
    sandbox_id: str
    policy_revision: str
    trace_id: str

    def is_raised(self) -> bool:
        return False

    def urgency(self) -> Priority:
        """The priority of this very event."""
        return self.raised[0] if self.raised is not None and self.is_raised() else self.priority


@dataclass(frozen=True, slots=True)
class ExecutionRequested(Event):
    """`input_sha256` names the full redacted request in the content-addressed store beside the journal.

    `caller_method` is the RPC by which the caller asked, `caller_roles` what it was then. `command_hmac` is of
    the whole command, redacted, under a key of the node's.
    """

    rule: ClassVar[str] = "execution.requested"

    profile: str
    command: str
    command_hmac: str
    language: str
    input_sha256: str
    agent_name: str
    agent_session_id: str
    tool_name: str
    tool_use_id: str
    labels: tuple[tuple[str, str], ...]
    caller_roles: tuple[str, ...]
    caller_method: str


@dataclass(frozen=True, slots=True)
class ExecutionRefused(Event):
    """Something refused: `reason` is the error's reason code, or that of policy where nothing else is on record of it.

    Of a caller that is refused all the time not each one is on record: this is the last of `count` alike, and
    `suppressed` of them have no event of their own, whatever led to them (`audit.refusals_per_minute`).
    """

    rule: ClassVar[str] = "execution.refused"
    priority: ClassVar[Priority] = "Notice"

    reason: str
    message: str
    count: int = 1
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class PolicyDecided(Event):
    """`input_sha256` names the exact policy input in the content-addressed store; empty if none could be made.

    `remembered`: an equal question was answered so shortly before, and the policy lets that answer be taken again. A
    plain allow of profile.use is on record only where it was not remembered. `profile_revision`, of what is to run
    under a profile: the revision that allowed its use.
    """

    rule: ClassVar[str] = "policy.decided"
    raised: ClassVar[tuple[Priority, str] | None] = ("Warning", "where the verdict is deny")

    action: str
    verdict: str
    reason_codes: tuple[str, ...]
    input_sha256: str
    engine: str
    remembered: bool
    profile_revision: str = ""

    def is_raised(self) -> bool:
        return self.verdict == "deny"


@dataclass(frozen=True, slots=True)
class PolicyReloaded(Event):
    """Another policy decides from now on (`policy_revision`). `version` is a signed bundle's, else 0."""

    rule: ClassVar[str] = "policy.reloaded"
    priority: ClassVar[Priority] = "Notice"

    engine: str
    former_revision: str
    version: int


@dataclass(frozen=True, slots=True)
class PolicyReloadFailed(Event):
    """The policy on disk cannot be taken; the one before (`policy_revision`) goes on deciding."""

    rule: ClassVar[str] = "policy.reload_failed"
    priority: ClassVar[Priority] = "Error"

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PolicyShadowDiffered(Event):
    """The shadow policy would have decided otherwise. It decided nothing; `obligations` are JSON."""

    rule: ClassVar[str] = "policy.shadow_differed"
    priority: ClassVar[Priority] = "Notice"

    action: str
    input_sha256: str
    verdict: str
    reason_codes: tuple[str, ...]
    obligations: str
    shadow_verdict: str
    shadow_reason_codes: tuple[str, ...]
    shadow_obligations: str
    shadow_revision: str


@dataclass(frozen=True, slots=True)
class PolicyShadowFailed(Event):
    """The shadow policy cannot be loaded (then it has no revision) or does not answer. No decision is affected."""

    rule: ClassVar[str] = "policy.shadow_failed"
    priority: ClassVar[Priority] = "Error"

    shadow_revision: str
    message: str


@dataclass(frozen=True, slots=True)
class ApprovalRequested(Event):
    """Policy leaves an action to people, and it is parked. `shown_sha256` names what they read, whole.

    `binding_sha256` is the digest of all that a grant will be good for. No `approvers`: any operator.
    """

    rule: ClassVar[str] = "approval.requested"
    priority: ClassVar[Priority] = "Notice"

    approval_id: str
    action: str
    binding_sha256: str
    shown_sha256: str
    profile: str
    reasons: tuple[str, ...]
    approvers: tuple[str, ...]
    quorum: int
    ttl_seconds: float


@dataclass(frozen=True, slots=True)
class ApprovalVoted(Event):
    """An approver (`subject`) agrees, and the quorum needs more. Execution and sandbox are those that asked first."""

    rule: ClassVar[str] = "approval.voted"
    priority: ClassVar[Priority] = "Notice"

    approval_id: str
    action: str
    binding_sha256: str
    requester: str
    comment: str
    votes: int
    quorum: int


@dataclass(frozen=True, slots=True)
class ApprovalGranted(Event):
    """An approver (`subject`) agrees, and that makes the quorum: the identical request may now go ahead, once."""

    rule: ClassVar[str] = "approval.granted"
    priority: ClassVar[Priority] = "Notice"

    approval_id: str
    action: str
    binding_sha256: str
    requester: str
    comment: str
    votes: int
    quorum: int


@dataclass(frozen=True, slots=True)
class ApprovalDenied(Event):
    """An approver (`subject`) says no, which ends it."""

    rule: ClassVar[str] = "approval.denied"
    priority: ClassVar[Priority] = "Notice"

    approval_id: str
    action: str
    binding_sha256: str
    requester: str
    comment: str
    votes: int
    quorum: int


@dataclass(frozen=True, slots=True)
class ApprovalRefused(Event):
    """The vote of `subject` does not count, although policy let it: `reason` is the error's reason code."""

    rule: ClassVar[str] = "approval.refused"
    priority: ClassVar[Priority] = "Warning"

    approval_id: str
    action: str
    requester: str
    approve: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ApprovalExpired(Event):
    """Nobody decided in time, or (`granted`) nobody used the grant."""

    rule: ClassVar[str] = "approval.expired"
    priority: ClassVar[Priority] = "Notice"

    approval_id: str
    action: str
    binding_sha256: str
    granted: bool


@dataclass(frozen=True, slots=True)
class ApprovalConsumed(Event):
    """The grant is used up by the execution of this event, which goes ahead on it."""

    rule: ClassVar[str] = "approval.consumed"
    priority: ClassVar[Priority] = "Notice"

    approval_id: str
    action: str
    binding_sha256: str
    approvers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExecutionStarted(Event):
    """`enforced` `degraded` `absent` hold guarantee ids, so that the record tells what was not enforced."""

    rule: ClassVar[str] = "execution.started"

    profile: str
    profile_digest: str
    runtime: str
    degraded: tuple[str, ...]
    absent: tuple[str, ...]
    warnings: tuple[str, ...]
    host_uid: int


@dataclass(frozen=True, slots=True)
class ExecutionEnded(Event):
    rule: ClassVar[str] = "execution.ended"
    raised: ClassVar[tuple[Priority, str] | None] = ("Warning", "where a violation ended it")
    keep: ClassVar[bool] = True

    end_reason: str
    exit_code: int | None
    signal: int | None
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    stdout_bytes: int
    stderr_bytes: int
    limits_hit: tuple[str, ...]
    violations: tuple[str, ...]
    redactions: tuple[tuple[str, int], ...] = ()  # pattern, matches taken out of output and files
    detail: str = ""  # daemon_restarted: its daemon died, so nobody saw it end and its numbers are -1

    def is_raised(self) -> bool:
        return self.end_reason == "VIOLATION"


@dataclass(frozen=True, slots=True)
class SandboxViolated(Event):
    """A program was ended by, or seen at, a layer of its confinement."""

    rule: ClassVar[str] = "sandbox.violated"
    priority: ClassVar[Priority] = "Warning"
    keep: ClassVar[bool] = True

    layer: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProcessExecDecided(Event):
    """A process of the sandbox is about to become another program. `image` is where its path led when it was asked.

    The process may name another file once it is answered: `degraded` and `absent` of execution.started tell whether
    the layers hold that bound what can run at all. `layer` refused it; empty if it went ahead. Of many that are refused
    for one reason this is the last of `count`, and `suppressed` of them have no event of their own.
    """

    rule: ClassVar[str] = "process.exec_decided"
    raised: ClassVar[tuple[Priority, str] | None] = ("Warning", "where it was refused")

    image: str
    command: str
    arguments: int
    cwd: str
    pid: int
    parent_pid: int
    verdict: str
    reason_codes: tuple[str, ...]
    input_sha256: str
    engine: str
    remembered: bool
    layer: str
    count: int = 1
    suppressed: int = 0

    def is_raised(self) -> bool:
        return bool(self.layer)


@dataclass(frozen=True, slots=True)
class SyscallDenied(Event):
    """`count` equal calls were refused, the last by `pid`; `suppressed` of them have no event of their own.

    `reason` is profile, or why policy could not be asked about an exec: unreadable, fault, too_large, foreign,
    daemon_busy, late.
    """

    rule: ClassVar[str] = "syscall.denied"
    priority: ClassVar[Priority] = "Notice"
    keep: ClassVar[bool] = True

    name: str
    number: int
    pid: int
    errno: str
    reason: str
    count: int
    suppressed: int
    layer: str


@dataclass(frozen=True, slots=True)
class SinkFailed(Event):
    """The sink named `sink` does not take what it is sent, and is tried again for as long as it takes.

    There is one when that begins, at most one a minute: `suppressed` counts the times before that have none of their
    own. `retries` counts attempts since the daemon started.
    """

    rule: ClassVar[str] = "sink.failed"
    priority: ClassVar[Priority] = "Warning"

    sink: str
    type: str
    required: bool
    message: str
    retries: int
    suppressed: int


@dataclass(frozen=True, slots=True)
class SinkRecovered(Event):
    """The sink takes again what it is sent, `seconds` after the first attempt that it did not."""

    rule: ClassVar[str] = "sink.recovered"
    priority: ClassVar[Priority] = "Notice"

    sink: str
    type: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SinkLagged(Event):
    """`records` from `first_seq` on are gone from the journal, and the sink never had them."""

    rule: ClassVar[str] = "sink.lagged"
    priority: ClassVar[Priority] = "Error"

    sink: str
    type: str
    first_seq: int
    records: int


@dataclass(frozen=True, slots=True)
class SinkSkipped(Event):
    """A sink that is not required refuses record `seq` for good, so that one was passed over. `of_rule` and `sha256`
    are that record's; it is still in the journal."""

    rule: ClassVar[str] = "sink.skipped"
    priority: ClassVar[Priority] = "Error"

    sink: str
    type: str
    seq: int
    of_rule: str
    sha256: str
    message: str


@dataclass(frozen=True, slots=True)
class ResponseTaken(Event):
    """An operator, or a rule of the configuration (`mapped_rule`), had something frozen, thawed, killed, quarantined or
    looked into, or a quarantine lifted.

    `subject` is who asked, `target_id` what was named. `effects` has for each execution that lived what became of it:
    frozen, thawed, killed, held (frozen and kept), examined, unchanged, failed.
    """

    rule: ClassVar[str] = "response.taken"
    priority: ClassVar[Priority] = "Warning"

    measure: str
    target: str  # sandbox, execution, tenant or subject
    target_id: str
    mapped_rule: str
    comment: str
    caller_method: str
    effects: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ResponseRefused(Event):
    """A response was asked for and not carried out: `reason` is the error's reason code."""

    rule: ClassVar[str] = "response.refused"
    priority: ClassVar[Priority] = "Warning"

    measure: str
    target: str
    target_id: str
    mapped_rule: str
    comment: str
    caller_method: str
    reason: str


@dataclass(frozen=True, slots=True)
class DaemonStarted(Event):
    """`mode` is root, rootless-subuid or rootless-single; `recovered` counts sandboxes found from before."""

    rule: ClassVar[str] = "daemon.started"
    priority: ClassVar[Priority] = "Notice"

    version: str
    mode: str
    recovered: int
    profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DaemonStopped(Event):
    rule: ClassVar[str] = "daemon.stopped"
    priority: ClassVar[Priority] = "Notice"

    reason: str


@dataclass(frozen=True, slots=True)
class ConfigReloaded(Event):
    rule: ClassVar[str] = "config.reloaded"
    priority: ClassVar[Priority] = "Notice"
    raised: ClassVar[tuple[Priority, str] | None] = ("Error", "where it failed")

    profiles: tuple[str, ...]
    ok: bool
    message: str

    def is_raised(self) -> bool:
        return not self.ok


@dataclass(frozen=True, slots=True)
class JournalRepaired(Event):
    """A torn last line after a crash was cut off."""

    rule: ClassVar[str] = "journal.repaired"
    priority: ClassVar[Priority] = "Error"

    segment: str
    removed_bytes: int


@dataclass(frozen=True, slots=True)
class JournalCheckpoint(Event):
    """Signed: record `sealed_seq` of this journal has the SHA-256 `sealed_digest`, and with it all that came before.

    The first record of each segment is one. `signature` is Ed25519, in hex, of the lines `sandboxd journal checkpoint
    v1`, boot, sealed_seq, sealed_digest, time and key_id, each with its newline. `key_id` is the SHA-256 of the key's
    32 bytes.
    """

    rule: ClassVar[str] = "journal.checkpoint"
    priority: ClassVar[Priority] = "Debug"

    sealed_seq: int
    sealed_digest: str
    key_id: str
    signature: str


@dataclass(frozen=True, slots=True)
class JournalTrimmed(Event):
    """Retention takes the oldest segments, and the packs of documents that only they name: `first_seq` is the oldest
    record that stays. `reason` is age or bytes."""

    rule: ClassVar[str] = "journal.trimmed"
    priority: ClassVar[Priority] = "Notice"

    first_seq: int
    segments: int
    packs: int
    removed_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class JournalGap(Event):
    """The journal can be written again. Since the time `since` it took neither `records` events nor `documents`.

    `rules` counts the events by rule. The last `kept` of them follow this one, with the time when they happened; the
    others are lost, and what they would have recorded first was refused.
    """

    rule: ClassVar[str] = "journal.gap"
    priority: ClassVar[Priority] = "Critical"

    since: str
    records: int
    documents: int
    kept: int
    rules: tuple[tuple[str, int], ...]
