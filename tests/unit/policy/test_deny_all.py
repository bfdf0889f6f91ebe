from sandboxd.model import Verdict
from sandboxd.policy import deny_all
from sandboxd.settings.policy import Policy
from tests.fakes.policy import question


async def test_everything_is_denied_with_a_reason() -> None:
    engine = await deny_all.create(Policy(engine="deny_all"))
    decision = await engine.decide(question())
    assert (decision.verdict, decision.reasons[0].code, decision.revision) == (Verdict.DENY, "deny_all", "deny_all")
    await engine.close()
