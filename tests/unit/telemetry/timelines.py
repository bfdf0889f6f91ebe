"""Executions that are over, for the tests of what is told of them."""

from sandboxd.model import Agent, ArgvProgram, Decision, EndReason, ExecuteRequest, Outcome, Usage, Verdict
from sandboxd.redaction.redaction import Redaction
from sandboxd.telemetry.timeline import Ending, Step, Timeline
from sandboxd.trace_context import TraceContext

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLED = TraceContext(TRACE, PARENT, True, "vendor=1")
ALLOW = Decision(Verdict.ALLOW, (), "r1")
AGENT = Agent(name="bot", session_id="s1", tool_name="python", tool_use_id="call_1")


def ending(
    reason: EndReason = EndReason.EXITED,
    exit_code: int | None = 0,
    *,
    refused: str = "",
    agent: Agent = AGENT,
    redaction: Redaction | None = None,
    profile: str = "default",
) -> Ending:
    outcome = Outcome(
        execution_id="e" * 32, end_reason=reason, exit_code=exit_code, signal=None, usage=Usage(wall_seconds=0.0)
    )
    request = ExecuteRequest(ArgvProgram(("/bin/echo", "secret-argument")), profile=profile, agent=agent)
    return Ending(request, "local", "5" * 32, "r1", outcome, refused, redaction)


def timeline(
    context: TraceContext = CALLED, steps: tuple[Step, ...] = (Step.ADMISSION, Step.DECISION, Step.ACQUIRE, Step.RUN)
) -> Timeline:
    """Under way."""
    made = Timeline(context, lambda _: None)
    for step in steps:
        made.begin(step)
        if step is Step.DECISION:
            made.decided(ALLOW, "rego")
    return made


def ended(ending: Ending, context: TraceContext = CALLED) -> Timeline:
    made = timeline(context)
    made.close(ending)
    return made
