"""The blanks that the spawner offers, each with its descriptors: a launch that names one needs not wait for an answer.

Whatever is withdrawn or not used is closed here. Called by `process`.
"""

from dataclasses import dataclass

from sandboxd.model import LaunchPlan
from sandboxd.spawner import wire


@dataclass(frozen=True, slots=True)
class Offer:
    """Its descriptors are the holder's."""

    message: wire.Offered
    fds: list[int]

    def fits(self, plan: LaunchPlan) -> bool:
        """Whether it holds already what the plan asks for, so that the spawner has nothing to refuse."""
        limits, held = plan.limits, self.message
        return (
            plan.network == "none"
            and not limits.io_read_bytes_per_second
            and not limits.io_write_bytes_per_second
            and (limits.memory_bytes, limits.pids, limits.cpus) == (held.memory_bytes, held.pids, held.cpus)
            and (limits.workspace_bytes, limits.workspace_inodes) == (held.workspace_bytes, held.workspace_inodes)
            and (limits.tmp_bytes, limits.tmp_inodes) == (held.tmp_bytes, held.tmp_inodes)
        )


class Offers:
    """By number, oldest first."""

    def __init__(self) -> None:
        self._there: dict[int, Offer] = {}

    def __len__(self) -> int:
        return len(self._there)

    def add(self, message: wire.Offered, fds: list[int]) -> None:
        if message.offer < 1 or message.offer in self._there:
            wire.close_all(fds)
            raise wire.ProtocolError(f"offer {message.offer} is not a new one")
        self._there[message.offer] = Offer(message, fds)

    def take(self, plan: LaunchPlan) -> Offer | None:
        """One that may become this, if possible one that fits; from now on the caller's."""
        able = [offer for offer in self._there.values() if plan.template_digest in offer.message.templates]
        found = next((offer for offer in able if offer.fits(plan)), able[0] if able else None)
        if found is not None:
            del self._there[found.message.offer]
        return found

    def withdraw(self, number: int) -> bool:
        """Whether it was still there; it is not any more."""
        offer = self._there.pop(number, None)
        if offer is not None:
            wire.close_all(offer.fds)
        return offer is not None

    def close(self) -> None:
        for number in tuple(self._there):
            self.withdraw(number)
