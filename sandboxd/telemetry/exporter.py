"""Sends traces and metrics to a collector over OTLP: from a bounded queue, in a task of its own, in nobody's way.

What a collector that is gone or slow does not take is tried a few times, then dropped and counted: it is a hint about
what went on, and the record of that is the journal. Runs on the daemon's event loop, with no thread: encoding is done a
few executions at a time. Takes long to import: only where telemetry is configured. Made by `daemon`.
"""

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from prometheus_client.registry import CollectorRegistry

from sandboxd.outbound.again import seconds_until
from sandboxd.outbound.post import Answer, NoAnswer, Poster
from sandboxd.settings.telemetry import Otlp, Telemetry
from sandboxd.telemetry import numbers, spans
from sandboxd.telemetry.timeline import Timeline, Trace, Untraced
from sandboxd.trace_context import TraceContext

TRACES: Final = "traces"
METRICS: Final = "metrics"
MOST_WAITING: Final = 2048  # executions: of more the newest are dropped
MOST_TOGETHER: Final = 16  # executions in one request: about a millisecond of the event loop
LINGER_SECONDS: Final = 1.0
ATTEMPTS: Final = 4
FIRST_RETRY_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
_AGAIN: Final = frozenset({429, 502, 503, 504})  # of the OTLP specification: all that is worth another try
_REJECTED: Final = "rejected"  # told once
_CONTENT: Final = "application/x-protobuf"
_RATIO_DIGITS: Final = 14

log = logging.getLogger(__name__)


class Exporter:
    """Bound to the running event loop. ConfigInvalid for a certificate, key or CA that cannot be used."""

    SIGNALS: Final = (TRACES, METRICS)

    def __init__(
        self,
        settings: Telemetry,
        otlp: Otlp,
        version: str,
        node: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._poster = Poster("telemetry.otlp", otlp, connections=len(self.SIGNALS))
        self._who = spans.resource(version, node)
        self._sleep = sleep
        self._jitter = jitter
        self._began = time.time_ns()
        self._bound = int(settings.sample_ratio * 16**_RATIO_DIGITS)
        self._waiting: deque[Timeline] = deque()
        self._under_way: list[Timeline] = []
        self._there = asyncio.Event()
        self._registry: CollectorRegistry | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._failing: set[str] = set()
        # Executions of the one signal, readings of the other; failures are attempts.
        self.sent: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Executions that are over and not sent."""
        return len(self._waiting) + len(self._under_way)

    def trace(self, context: TraceContext) -> Trace:
        """Sampled as the caller says who is in a trace; else by the trace's id, so that every node says the same."""
        if not self._settings.traces:
            return Untraced(context)
        sampled = context.sampled if context.parent_id else int(context.trace_id[-_RATIO_DIGITS:], 16) < self._bound
        return Timeline(context, self._offer) if sampled else Untraced(context)

    def begin(self, registry: CollectorRegistry | None) -> None:
        """From now on it sends; without a registry, no metrics."""
        loop = asyncio.get_running_loop()
        self._registry = registry
        work = [self._send_traces()] if self._settings.traces else []
        if registry is not None:
            work.append(self._send_metrics(registry))
        self._tasks = tuple(loop.create_task(one) for one in work)

    async def close(self, seconds: float) -> None:
        """What is left is sent once, within that time; nothing is left running afterwards."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            async with asyncio.timeout(seconds):
                await self._last()
        except TimeoutError:
            pass
        finally:
            self._drop(TRACES, self.waiting, "the daemon ends")
            self._waiting.clear()
            self._under_way = []
            await self._poster.close()

    async def _last(self) -> None:
        while batch := self._batch():
            if await self._attempt(TRACES, spans.request_of(self._who, batch), len(batch)):
                break
            self._under_way = []
        if self._registry is not None:
            await self._attempt(METRICS, self._reading(self._registry), 1)

    def _offer(self, timeline: Timeline) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.dropped[TRACES] += 1
            return
        self._waiting.append(timeline)
        self._there.set()

    def _batch(self) -> list[Timeline]:
        """What was under way before, else the oldest that wait."""
        if not self._under_way:
            count = min(MOST_TOGETHER, len(self._waiting))
            self._under_way = [self._waiting.popleft() for _ in range(count)]
        return self._under_way

    async def _send_traces(self) -> None:
        while True:
            await self._there.wait()
            await self._sleep(LINGER_SECONDS)
            self._there.clear()
            while batch := self._batch():
                await self._deliver(TRACES, partial(spans.request_of, self._who, batch), len(batch))
                self._under_way = []

    async def _send_metrics(self, registry: CollectorRegistry) -> None:
        while True:
            await self._sleep(self._settings.metrics_seconds)
            await self._deliver(METRICS, partial(self._reading, registry), 1)

    def _reading(self, registry: CollectorRegistry) -> bytes:
        return numbers.request_of(self._who, registry, self._began, time.time_ns())

    async def _deliver(self, signal: str, written: Callable[[], bytes], count: int) -> None:
        try:
            body = written()
        except Exception as error:  # the outer edge of these tasks: what cannot be written costs the rest nothing
            log.exception("telemetry cannot be written")
            self._drop(signal, count, type(error).__name__)
            return
        problem = ""
        for attempt in range(ATTEMPTS):
            pause = await self._attempt(signal, body, count)
            if pause is None:
                return
            problem, wanted = pause
            if wanted < 0:
                break
            if attempt < ATTEMPTS - 1:
                most = FIRST_RETRY_SECONDS * 2.0**attempt
                await self._sleep(min(max(wanted, most * (0.5 + self._jitter() / 2)), LONGEST_PAUSE_SECONDS))
        self._drop(signal, count, problem)

    async def _attempt(self, signal: str, body: bytes, count: int) -> tuple[str, float] | None:
        """None once it is taken; else what was wrong, and so many seconds to wait at least, below 0: for ever."""
        try:
            answer = await self._poster.post(body, _CONTENT, f"/v1/{signal}")
        except NoAnswer as error:
            self.failures[signal] += 1
            return str(error), 0.0
        if answer.ok:
            self._taken(signal, answer, count)
            return None
        self.failures[signal] += 1
        return f"it answered {answer.status}", seconds_until(answer.retry_after) if answer.status in _AGAIN else -1.0

    def _taken(self, signal: str, answer: Answer, count: int) -> None:
        self.sent[signal] += count
        if signal in self._failing:
            self._failing.discard(signal)
            log.warning("the collector takes telemetry again", extra={"signal": signal})
        if signal == TRACES and (rejected := _rejected(answer.body)) and _REJECTED not in self._failing:
            self._failing.add(_REJECTED)
            log.warning("the collector rejects spans", extra={"spans": rejected})

    def _drop(self, signal: str, count: int, problem: str) -> None:
        if not count:
            return
        self.dropped[signal] += count
        if signal not in self._failing:  # else a collector that is gone would fill the log
            self._failing.add(signal)
            log.warning("telemetry is dropped", extra={"signal": signal, "error": problem[:200]})


def _rejected(body: bytes) -> int:
    try:
        return ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans
    except DecodeError:
        return 0  # it is 2xx all the same
