"""Ordinary questions, one for each action: what a policy is tried on before anything depends on it.

Never asked once the socket is open. Called by the engines when they are made.
"""

from dataclasses import dataclass

from sandboxd.action import (
    Action,
    ApprovalDecide,
    ExecutionStart,
    FileDelete,
    FileGet,
    FileList,
    FilePut,
    NetConnect,
    ProcessExec,
    ProfileUse,
    SandboxCreate,
    SandboxDelete,
    SandboxPause,
    SandboxRestore,
    SandboxResume,
    SandboxSnapshot,
    SecretUse,
)
from sandboxd.model import Agent, Caller, Decision, Isolation, Limits
from sandboxd.policy.document import PolicyInput, ProfileFacts, SandboxFacts, policy_input

_LIMITS = Limits(30.0, 0.0, 20.0, 1.0, 1 << 28, 64, 256, 1 << 26, 1 << 26, 4096, 1 << 26, 4096, 1 << 20, 1 << 20,
                 1 << 24, 1 << 22, 64, 0, 0)  # fmt: skip
_ACTIONS: tuple[Action, ...] = (
    ExecutionStart(
        argv=("/bin/true",),
        language="",
        code_sha256="",
        findings=(),
        code=None,
        env_names=(),
        files=(),
        stdin_bytes=0,
        isolation=Isolation.PROCESS,
        network="none",
        limits=_LIMITS,
        labels=(),
        agent=Agent(),
    ),
    ProcessExec("/bin/true", ("/bin/true",), "/workspace", 2, 1),
    FilePut("/workspace/a", 0o644, 1, ""),
    FileGet("/workspace/a"),
    FileList("/workspace", recursive=False),
    FileDelete("/workspace/a", recursive=False),
    SandboxCreate(Isolation.PROCESS, "none", _LIMITS, (), 60.0, Agent()),
    SandboxDelete(),
    SandboxPause(),
    SandboxResume(),
    SandboxSnapshot("sample"),
    SandboxRestore("0" * 32, in_place=True),
    NetConnect("tcp", "example.org", "192.0.2.1", 443),
    SecretUse("sample", "example.org", 443),
    ProfileUse(Isolation.PROCESS, "none", ()),
    ApprovalDecide("0" * 32, approve=True, action_type="execution.start", action_sha256="0" * 64, requester="uid:1"),
)
_NEEDED = {ProfileUse.type, ExecutionStart.type}
_NO_DECISION = {"policy_malformed", "policy_unavailable", "policy_timeout"}


@dataclass(frozen=True, slots=True)
class Sample:
    action_type: str
    question: PolicyInput

    def objection(self, decision: Decision) -> str:
        """Why this cannot be the policy's answer to it; empty if it can.

        To have no answer is one, and a deny, but for those two without which nothing runs.
        """
        refused = _NO_DECISION | ({"policy_undefined"} if self.action_type in _NEEDED else set())
        for reason in decision.reasons:
            if reason.code in refused:
                return f"the policy does not answer a sample {self.action_type!r} with a decision ({reason.message})"
        return ""


def samples() -> tuple[Sample, ...]:
    caller = Caller("local", "uid:0", (), "/sandboxd.v1.SandboxService/Execute")
    profile = ProfileFacts("default", "0" * 64, ())
    sandbox = SandboxFacts("0" * 32, "process")
    time = "2026-01-01T00:00:00.000Z"
    return tuple(
        Sample(action.type, policy_input(action, caller, profile, sandbox, "sample", time)) for action in _ACTIONS
    )
