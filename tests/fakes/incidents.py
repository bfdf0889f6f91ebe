"""What a responder stands before, with executions that really run on the fake runtime: each can be frozen and ends."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from sandboxd.gate import Gate, Subject
from sandboxd.lifecycle import ExecutionRecord, Registry
from sandboxd.model import (
    Caller,
    EndReason,
    EnforcementReport,
    ExecPlan,
    Isolation,
    LaunchPlan,
    Outcome,
)
from sandboxd.output import Queue
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from sandboxd.response.demand import Demand, Kind, Measure, Taken, Target
from sandboxd.response.quarantine import Quarantines
from sandboxd.response.responder import Responder
from sandboxd.supervise import Supervision
from sandboxd.suspension import Dossier, Suspension
from tests.fakes.clock import FakeClock
from tests.fakes.policy import LIMITS, FakeEngine
from tests.fakes.recorder import FakeRecorder
from tests.fakes.runtime import FakeRuntime, forever

OPERATOR = Caller("local", "uid:0", ("operator",), "/sandboxd.v1.NodeService/Respond")
SOMEBODY = Caller("local", "uid:1000", (), "/sandboxd.v1.NodeService/Respond")
TRACE = "7" * 32


@dataclass
class Incident:
    """One execution under way. Implements `lifecycle.Running`."""

    execution_id: str
    sandbox_id: str
    suspension: Suspension | None
    supervision: Supervision
    over: "asyncio.Task[Outcome]" = field(init=False)

    def end(self, reason: EndReason) -> None:
        self.supervision.end(reason)

    async def signal(self, signum: int) -> None:
        await self.supervision.signal(signum)


@dataclass
class Incidents:
    directory: Path
    runtime: FakeRuntime = field(default_factory=lambda: FakeRuntime(forever))
    engine: FakeEngine = field(default_factory=FakeEngine)
    record: FakeRecorder = field(default_factory=FakeRecorder)
    clock: FakeClock = field(default_factory=FakeClock)
    registry: Registry = field(default_factory=lambda: Registry(16, 1 << 20, lambda: 1.0))
    running: list[Incident] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.quarantines = Quarantines(self.directory / "state")
        self.gate = Gate(self.engine, barred=self.quarantines.barred)
        self.responder = Responder(self.gate, self.registry, self.quarantines, self.record, lambda: 5.0)

    async def start(self, subject: str = "uid:1000") -> Incident:
        """One that runs by the time this returns."""
        incident = await self.launch(subject)
        self.registry.started(incident.execution_id, EnforcementReport(Isolation.PROCESS, ()))
        incident.over = asyncio.create_task(incident.supervision.run(self._told))
        await incident.supervision.begun.wait()
        return incident

    async def launch(self, subject: str = "uid:1000") -> Incident:
        """One that is being launched."""
        number = len(self.running) + 1
        execution_id, sandbox_id = f"{number:032x}", f"{number:031x}a"
        sandbox = await self.runtime.launch(LaunchPlan(sandbox_id, Isolation.PROCESS, "d" * 64, LIMITS, "none"))
        plan = ExecPlan(execution_id, ("/bin/true",), (), "/workspace", LIMITS, b"", (), ())
        supervision = Supervision(sandbox, plan, self.clock, Queue())
        about = Subject(
            ProfileFacts("mine", "d" * 64, ()), SandboxFacts(sandbox_id, "process"), execution_id=execution_id
        )
        suspension = Suspension(self.runtime, supervision, Dossier(about, LIMITS))
        incident = Incident(execution_id, sandbox_id, suspension, supervision)
        self.running.append(incident)
        record = ExecutionRecord(execution_id, sandbox_id, "local", subject, "mine", "true", ())
        self.registry.add(record, incident)
        return incident

    async def respond(
        self, measure: Measure, kind: Kind, target: str, caller: Caller = OPERATOR, rule: str = ""
    ) -> Taken:
        return await self.responder.respond(Demand(measure, Target(kind, target), rule, "why"), caller, TRACE)

    async def end(self) -> None:
        for incident in self.running:
            incident.end(EndReason.NODE_SHUTDOWN)
            if hasattr(incident, "over"):
                await asyncio.wait({incident.over})

    async def _told(self, outcome: Outcome) -> None:
        self.registry.ended(outcome.execution_id, outcome)
