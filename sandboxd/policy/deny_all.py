"""The engine that says no to everything: for a node that must not run code now, and where policy cannot be loaded.

Never answers anything but deny. Found by name through `plugin`.
"""

from sandboxd.model import Decision, Reason, Verdict
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput
from sandboxd.settings.policy import Policy

_DENY = Decision(
    verdict=Verdict.DENY,
    reasons=(Reason("deny_all", "this node is configured to run nothing"),),
    revision="deny_all",
    message_for_agent="this node is configured to run nothing",
)


class DenyAll:
    name = "deny_all"
    revision = _DENY.revision
    repeatable = False
    answering = True

    async def decide(self, document: PolicyInput) -> Decision:
        return _DENY

    async def close(self) -> None:
        """Nothing is held."""


async def create(settings: Policy) -> PolicyEngine:
    """Takes what every engine takes; has no use for it."""
    return DenyAll()
