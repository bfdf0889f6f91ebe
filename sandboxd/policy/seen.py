"""What has happened in each living sandbox (`input.sandbox.seen`): a secret used, untrusted input brought in, egress.

Flags only rise, at the moment an action that raises one is allowed, and go with their sandbox. Kept by `gate`, through
which every action passes; `execution` says from when to when a sandbox is one.
"""

from sandboxd.action import Action, ExecutionStart, FilePut, NetConnect, SandboxRestore, SecretUse
from sandboxd.policy.document import Seen

# A label of the request: its caller vouches for the files and the standard input that it sends along.
TRUSTED_INPUT = ("sandboxd.io/trusted-input", "true")
NOTHING = Seen()
_RAISED = {
    SecretUse: Seen(secret=True),
    NetConnect: Seen(egress=True),
    FilePut: Seen(untrusted_input=True),
    # Of the sandbox that the snapshot was taken of, nothing is known: so it has seen everything.
    SandboxRestore: Seen(secret=True, untrusted_input=True, egress=True),
}
_INPUT = Seen(untrusted_input=True)


def raised_by(action: Action) -> Seen:
    """The flags that it raises where it is allowed."""
    if isinstance(action, ExecutionStart):
        brings = bool(action.files or action.stdin_bytes)
        return _INPUT if brings and TRUSTED_INPUT not in action.labels else NOTHING
    return _RAISED.get(type(action), NOTHING)


class Sightings:
    """By the id of the sandbox, from `begin` to `end`."""

    def __init__(self) -> None:
        self._of: dict[str, Seen] = {}

    def begin(self, sandbox_id: str) -> None:
        """A fresh sandbox, before anything is asked about it."""
        self._of[sandbox_id] = NOTHING

    def end(self, sandbox_id: str) -> None:
        """It is gone, and so is what it saw."""
        self._of.pop(sandbox_id, None)

    def of(self, sandbox_id: str) -> Seen | None:
        return self._of.get(sandbox_id)

    def rise(self, sandbox_id: str, flags: Seen) -> bool:
        """Whether they stand from now on: not in a sandbox that is not known, or not any more."""
        if flags is NOTHING:
            return True
        seen = self._of.get(sandbox_id)
        if seen is None:
            return False
        risen = Seen(
            seen.secret or flags.secret,
            seen.untrusted_input or flags.untrusted_input,
            seen.egress or flags.egress,
        )
        if risen != seen:  # the same object as long as it is the same
            self._of[sandbox_id] = risen
        return True
