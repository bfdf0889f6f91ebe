"""Policy engines for tests: one that answers what it is told, and the inputs to ask with."""

import asyncio
from dataclasses import dataclass, field

from sandboxd.action import Action, ExecutionStart
from sandboxd.model import Agent, Caller, Decision, Isolation, Limits, Verdict
from sandboxd.policy.document import PolicyInput, ProfileFacts, SandboxFacts, policy_input

LIMITS = Limits(30.0, 0.0, 20.0, 1.0, 1 << 28, 64, 256, 1 << 26, 1 << 26, 4096, 1 << 26, 4096, 1 << 20, 1 << 20,
                1 << 24, 1 << 22, 64, 0, 0)  # fmt: skip
CALLER = Caller("local", "uid:0", (), "/sandboxd.v1.SandboxService/Execute")


def start(argv: tuple[str, ...] = ("/bin/true",), env_names: tuple[str, ...] = ()) -> ExecutionStart:
    return ExecutionStart(
        argv=argv,
        language="",
        code_sha256="",
        findings=(),
        code=None,
        env_names=env_names,
        files=(),
        stdin_bytes=0,
        isolation=Isolation.PROCESS,
        network="none",
        limits=LIMITS,
        labels=(),
        agent=Agent(),
    )


def question(action: Action | None = None, profile: str = "default") -> PolicyInput:
    facts = ProfileFacts(profile, "0" * 64, ())
    sandbox = SandboxFacts("0" * 32, "process")
    return policy_input(action or start(), CALLER, facts, sandbox, "node", "2026-01-01T00:00:00.000Z")


@dataclass(slots=True)
class FakeEngine:
    """Answers `answer`, whatever it is; raises it if it is an exception. Remembers what it was `asked`.

    May a profile be used, it answers with `use`, and keeps those questions apart in `uses`. Gives way to other tasks
    `steps` times before it answers.
    """

    answer: object = Decision(Verdict.ALLOW, (), "fake-1")
    steps: int = 0
    name: str = "fake"
    revision: str = "fake-1"
    asked: list[PolicyInput] = field(default_factory=list)
    closed: bool = False
    repeatable: bool = False
    answering: bool = True
    use: object = Decision(Verdict.ALLOW, (), "fake-1")
    uses: list[PolicyInput] = field(default_factory=list)

    async def decide(self, document: PolicyInput) -> Decision:
        used = document.document.startswith(b'{"action":{"type":"profile.use"')
        (self.uses if used else self.asked).append(document)
        for _ in range(self.steps):
            await asyncio.sleep(0)
        answer = self.use if used else self.answer
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]  # what a faulty engine does

    async def close(self) -> None:
        self.closed = True
