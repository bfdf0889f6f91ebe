"""Spares callers the wait for a server that does not answer, and the server their questions: a circuit breaker.

Never allows anything: while it is open the engine denies. Decides nothing about why a question failed. Used by
`policy.opa`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"  # everything is asked
    OPEN = "open"  # nothing is asked until the pause is over
    HALF_OPEN = "half_open"  # one question is under way as a probe, no other is asked


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a question was admitted under: how it ended is of no interest once the state has changed since."""

    generation: int


class Breaker:
    """Opens after `failures` in a row, for `pause_seconds`. `clock` is monotonic; `changed` hears each new state."""

    def __init__(
        self, failures: int, pause_seconds: float, clock: Callable[[], float], changed: Callable[[State], None]
    ) -> None:
        self._most = failures
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._changed = changed
        self._generation = 0
        self._failed = 0
        self._until = 0.0
        self.state = State.CLOSED
        self.trips = 0  # how often it opened for a failure

    def admit(self) -> Ticket | None:
        """None: do not ask now. Whoever has a ticket must `settle` it."""
        if self.state is State.OPEN and self._clock() >= self._until:
            self._become(State.HALF_OPEN)
        elif self.state is not State.CLOSED:
            return None
        return Ticket(self._generation)

    def settle(self, ticket: Ticket, *, heard: bool | None) -> None:
        """Whether the server answered; None if the question was given up, which tells nothing about the server."""
        if ticket.generation != self._generation:
            return
        if heard:
            self._failed = 0
            if self.state is State.HALF_OPEN:
                self._become(State.CLOSED)
        elif heard is None:
            if self.state is State.HALF_OPEN:
                self._become(State.OPEN)  # with its pause already over: the next question is the probe
        else:
            self._failed += 1
            if self.state is State.HALF_OPEN or self._failed >= self._most:
                self._until = self._clock() + self._pause_seconds
                self.trips += 1
                self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self.state = state
        self._generation += 1
        self._changed(state)
