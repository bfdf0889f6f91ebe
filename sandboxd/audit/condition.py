"""How one sink does, and when that is worth an event: as it begins to fail and as it is well again, not in between.

Never makes an event for each attempt, nor more than a pair in EVENT_SECONDS: what a sink's trouble puts on record is
itself sent to sinks. Pure but for the clock. Used by `audit.feed`.
"""

from collections.abc import Callable
from typing import Literal

from sandboxd.event import SinkFailed, SinkRecovered
from sandboxd.settings.sinks.base import SinkSettings

State = Literal["ok", "failing", "stuck", "damaged"]
FAILED_ATTEMPTS = 3  # in a row: fewer are in the numbers alone
EVENT_SECONDS = 60.0
MESSAGE_CHARS = 512
NODE_EVENT = ("", "", "", "", "", "")


class Condition:
    """Told of each attempt by the feed, in order."""

    def __init__(self, settings: SinkSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self.state: State = "ok"
        self.retries = 0
        self.failures = 0  # in a row
        self.last_error = ""
        self.last_error_at = 0.0
        self.last_success_at = 0.0
        self.failing_since = 0.0
        self._told = False  # that it fails
        self._told_at = 0.0
        self._held = False  # back, for so little time has passed since it was told last
        self._suppressed = 0

    def refused(self, message: str) -> SinkFailed | None:
        """An attempt failed."""
        if not self.failures and self.state != "stuck":
            self.failing_since = self._clock()
        self.retries += 1
        self.failures += 1
        self.state = "failing"
        self._keep(message)
        return self._announcement() if self.failures >= FAILED_ATTEMPTS else None

    def stuck(self, seconds: float) -> SinkFailed | None:
        """An attempt has neither failed nor succeeded for that long."""
        if self.state == "ok":
            self.failing_since = self._clock() - seconds
        self.state = "stuck"
        self._keep(f"it has not answered for {seconds:g} s")
        return self._announcement()

    def damaged(self, message: str) -> SinkFailed | None:
        """The journal cannot be read any further: nothing more is sent."""
        if self.state == "ok":
            self.failing_since = self._clock()
        self.state = "damaged"
        self._keep(message)
        return self._announcement()

    def accepted(self) -> SinkRecovered | None:
        now = self._clock()
        self.last_success_at = now
        told, self._told = self._told, False
        self.state, self.failures = "ok", 0
        if not told:
            self._suppressed += self._held
            self._held = False
            return None
        settings = self._settings
        return SinkRecovered(*NODE_EVENT, settings.name, settings.type, max(0.0, now - self.failing_since))

    def passed_over(self) -> None:
        """What it refused for good is not sent again: the next attempt is the first of its own."""
        self.failures = 0

    def _keep(self, message: str) -> None:
        self.last_error = message[:MESSAGE_CHARS]
        self.last_error_at = self._clock()

    def _announcement(self) -> SinkFailed | None:
        if self._told:
            return None
        if self._told_at and abs(self._clock() - self._told_at) < EVENT_SECONDS:
            self._held = True  # told with the next attempt that fails after that time, or counted
            return None
        self._told, self._told_at, self._held = True, self._clock(), False
        suppressed, self._suppressed = self._suppressed, 0
        settings = self._settings
        return SinkFailed(
            *NODE_EVENT, settings.name, settings.type, settings.required, self.last_error, self.retries, suppressed
        )
