"""Approvals for tests: a question, who asks it, who decides, and a whole office on a directory of its own."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from sandboxd.approval.case import Asked, Case, Update, Vote
from sandboxd.approval.desk import Desk, Fatigue
from sandboxd.approval.office import Approvals
from sandboxd.approval.store import Store
from sandboxd.model import Approval, Caller, Decision, Reason, Verdict
from sandboxd.policy.document import ProfileFacts
from tests.fakes.clock import FakeClock
from tests.fakes.recorder import FakeRecorder

REQUESTER = Caller("local", "uid:1000", (), "/sandboxd.v1.SandboxService/Execute")
ALICE = Caller("local", "uid:0", ("operator",), "/sandboxd.v1.ApprovalService/Approve")
BOB = Caller("local", "uid:7", ("operator",), "/sandboxd.v1.ApprovalService/Approve")
NOBODY = Caller("local", "uid:99", (), "/sandboxd.v1.ApprovalService/Approve")
STRANGER = Caller("other", "uid:0", ("operator",), "/sandboxd.v1.ApprovalService/Approve")
LAVISH = Fatigue(1000, 1000)
ESCALATE = Decision(Verdict.ESCALATE, (Reason("c", "m"),), "r1")


def asked(
    binding: str = "b" * 64, *, requester: str = REQUESTER.subject, quorum: int = 1, approvers: tuple[str, ...] = ()
) -> Asked:
    return Asked(
        binding=binding,
        tenant="local",
        requester=requester,
        method=REQUESTER.method,
        action_type="execution.start",
        revision="r1",
        rule=Approval(60.0, approvers, quorum),
        reasons=("c: m",),
        profile=ProfileFacts("default", "d" * 64, (("team", "a"),)),
        runtime="process",
        sandbox_id="5" * 32,
        execution_id="e" * 32,
        trace_id="7" * 32,
        shown='{"argv":["/bin/true"]}',
        shown_bytes=22,
        shown_sha256="f" * 64,
    )


def case(*votes: Vote, question: Asked | None = None, number: int = 1, requested_at: float = 1000.0) -> Case:
    return Case(f"{number:032x}", question or asked(), requested_at, votes)


def yes(who: str = ALICE.subject, at: float = 1001.0) -> Vote:
    return Vote(who, approve=True, comment="", at=at)


def no(who: str = ALICE.subject, at: float = 1001.0, comment: str = "") -> Vote:
    return Vote(who, approve=False, comment=comment, at=at)


@dataclass
class Office:
    """A whole office; `again` is what a daemon finds that starts on the same directory."""

    directory: Path
    fatigue: Fatigue = LAVISH
    wait_seconds: float = 0.0
    clock: FakeClock = field(default_factory=FakeClock)
    record: FakeRecorder = field(default_factory=FakeRecorder)
    told: list[Update] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.store = Store(self.directory)
        self.desk = Desk(self.fatigue, self.store.load())
        self.approvals = Approvals(
            self.desk,
            self.store,
            self.record,
            self.clock.time,
            lambda: f"{next(self.numbers):032x}",
            self.told.append,
            self.wait_seconds,
        )

    def again(self) -> "Office":
        return Office(self.directory, self.fatigue, self.wait_seconds, self.clock, numbers=self.numbers)

    async def settle(self, question: Asked | None = None, decision: Decision = ESCALATE) -> Decision:
        return await self.approvals.settle(decision, question or asked())

    async def approve(self, approval_id: str, caller: Caller = ALICE) -> Update:
        return await self.approvals.vote(approval_id, caller, approve=True, comment="fine")

    async def deny(self, approval_id: str, caller: Caller = ALICE, comment: str = "") -> Update:
        return await self.approvals.vote(approval_id, caller, approve=False, comment=comment)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())
