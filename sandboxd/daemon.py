"""The composition root: `python -m sandboxd.daemon`, started by the spawner under a uid of its own.

Makes every part, has each prove itself, and only then opens the socket; swaps profiles and policy as one on reload;
drains on SIGTERM. Never decides and never confines anything itself.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from sandboxd import __version__, config, logs, plugin, recovery
from sandboxd.admission import Admission
from sandboxd.analysis.analyser import Analyser
from sandboxd.approval.case import Update, last_change
from sandboxd.approval.clock import ForwardClock, steady
from sandboxd.approval.desk import Desk, Fatigue
from sandboxd.approval.office import Approvals
from sandboxd.approval.store import DIRECTORY, Store
from sandboxd.audit.feed import Feed
from sandboxd.audit.reader import AuditReader
from sandboxd.audit.recorder import Recorder
from sandboxd.audit.upkeep import Upkeep
from sandboxd.clock import LoopClock
from sandboxd.config import Config
from sandboxd.errors import AuditUnavailable, ConfigInvalid, PolicyInvalid, ProfileInvalid, SandboxdError
from sandboxd.event import ConfigReloaded, DaemonStarted, DaemonStopped
from sandboxd.execution import Executor, new_id
from sandboxd.gate import MARGIN_SECONDS, Gate
from sandboxd.lifecycle import Registry
from sandboxd.metrics.tally import Tally
from sandboxd.model import EndReason, Isolation
from sandboxd.profile.load import ProfileSet, load_profiles
from sandboxd.readiness import Readiness
from sandboxd.redaction.redaction import Redactions
from sandboxd.refusals import Refusals
from sandboxd.response.quarantine import Quarantines
from sandboxd.response.responder import Responder
from sandboxd.rollout import Rollout
from sandboxd.rpc.node import NodeFacts
from sandboxd.rpc.server import Server, ServerConfig, serve
from sandboxd.runtime.process import ProcessRuntime
from sandboxd.settings.sinks.base import SinkSettings
from sandboxd.sink.base import Reopens, Sink, SinkRefused, SinkUnavailable
from sandboxd.telemetry.timeline import Trace, Untraced
from sandboxd.trace_context import TraceContext
from sandboxd.voting import Voting

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

    import sandboxd.response.endpoint as response_endpoint
    from sandboxd.metrics.endpoint import Endpoint
    from sandboxd.telemetry.exporter import Exporter

EX_SOFTWARE, EX_CONFIG = 70, 78  # of sysexits.h: the second tells the spawner that trying again mends nothing
STOP_SECONDS = 2.0  # for what ends after the grace: each of trees, calls and sinks
PROVE_SECONDS = 30.0  # for a required sink to accept at start
LAST_RECORDS_SECONDS = 0.1
NODE_EVENT = ("", "", "", "", "", "")  # an event that concerns no execution

log = logging.getLogger("sandboxd.daemon")  # run as __main__


class Daemon:
    """Everything that lives as long as the daemon. `run` returns its exit code."""

    def __init__(self, settings: Config, runtime: ProcessRuntime) -> None:
        self._settings = settings
        self._runtime = runtime
        self._node = os.uname().nodename
        self._profiles = ProfileSet({})
        self._stop: asyncio.Future[tuple[int, str, float]] = asyncio.get_running_loop().create_future()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sinks: list[tuple[SinkSettings, Sink]] = []
        self._webhooks: list[Callable[[], Coroutine[None, None, None]]] = []
        self._status = "starting"
        limits = settings.limits
        self._analyser = Analyser()
        self._refusals = Refusals(settings.audit.refusals_per_minute, time.monotonic)
        self._admission = Admission(limits.max_concurrent, limits.max_per_minute, time.monotonic)
        self._registry = Registry(limits.retained_executions, limits.retained_bytes, time.time)
        self._feeds: list[Feed] = []
        self._tally = None if settings.metrics.place is None and not settings.telemetry.measures else Tally()
        self._exporter: Exporter | None = None

    async def run(self) -> int:
        """Start, serve, and end in order."""
        self._watch()
        self._recorder = self._open_journal()
        if self._tally is not None:
            self._recorder.observe(self._tally.count)
        if self._settings.audit.on_failure == "kill":
            self._recorder.on_failure(lambda: self._registry.end_all(EndReason.KILLED))
        try:
            _, self._profiles = await asyncio.gather(self._analyser.start(), self._load_profiles())
            policy = self._settings.policy
            deadline_seconds = policy.deadline_seconds + MARGIN_SECONDS
            self._approvals = self._open_approvals()
            self._rollout = Rollout(policy, Path(self._settings.state_dir), self._recorder.record)
            engine = await self._rollout.load()
            quarantines = Quarantines(Path(self._settings.state_dir))
            self._gate = Gate(
                engine,
                node=self._node,
                deadline_seconds=deadline_seconds,
                approvals=self._approvals,
                took=None if self._tally is None else self._tally.asked.add,
                barred=quarantines.barred,
            )
            self._responder = Responder(self._gate, self._registry, quarantines, self._recorder, time.time)
            try:
                await self._rollout.attach(self._gate)
                return await self._serve()
            finally:
                await self._rollout.close()
                await self._gate.engine.close()
        finally:
            await self._analyser.close()
            await self._recorder.close()

    async def _serve(self) -> int:
        await self._recover()
        await self._prove_sinks()
        self._feeds = [self._feed(settings, sink) for settings, sink in self._sinks]
        feeds = [asyncio.create_task(feed.run()) for feed in self._feeds]
        feeds.append(asyncio.create_task(Upkeep(self._recorder, self._settings.audit, self._confirmed).run()))
        feeds.append(asyncio.create_task(self._approvals.run()))
        self._audit = AuditReader(self._recorder, Path(self._settings.state_dir), indexed=self._settings.audit.index)
        feeds.append(asyncio.create_task(self._audit.run()))
        counting = asyncio.create_task(self._refusals.run(self._recorder.record))
        feeds.extend(asyncio.create_task(run()) for run in self._webhooks)
        server = metrics = response = None
        code, reason = EX_SOFTWARE, "start_failed"
        try:
            server = await self._open_socket()
            metrics = self._open_metrics(server)
            response = self._open_response()
            gc.collect()
            gc.freeze()  # what lives by now lives on: no collection during a request looks at it again
            self._status = f"serving {server.path}"
            self._runtime.ready(self._status)
            log.info("serving", extra={"socket": str(server.path), "profiles": self._profiles.names()})
            code, reason, grace_seconds = await self._stop
            await self._drain(server, grace_seconds)
        finally:
            for endpoint in (metrics, response):
                if endpoint is not None:
                    await endpoint.close()
            self._audit.close()
            if server is not None:
                await server.stop(STOP_SECONDS)
                await self._readiness.close()
            if self._exporter is not None:
                await self._exporter.close(STOP_SECONDS)
            counting.cancel()
            await asyncio.wait({counting})
            await self._record_stop(reason)
            await _end(feeds)
        return code

    # --- start

    def _watch(self) -> None:
        """What ends the daemon, and what has it reload."""
        runtime, grace = self._runtime, self._settings.drain_grace_seconds
        runtime.on_drain(lambda drain: self._end(0, "drain", drain.grace_seconds))
        runtime.on_lost(lambda: self._end(EX_SOFTWARE, "spawner_lost", 0.0))
        runtime.on_reloaded(lambda reloaded: self._spawn_reload(reloaded.templates))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, 0, signal.Signals(number).name, grace)
        # Whoever signals all of sandboxd means the spawner, which compiles the profiles and then tells us.
        loop.add_signal_handler(signal.SIGHUP, log.info, "a reload is asked of the spawner; nothing to do here")

    def _end(self, code: int, reason: str, grace_seconds: float) -> None:
        if not self._stop.done():
            self._stop.set_result((code, reason, grace_seconds))

    def _open_journal(self) -> Recorder:
        state = Path(self._settings.state_dir)
        self._left_open = recovery.open_executions(state / "journal")
        audit = self._settings.audit
        boot_id = secrets.token_hex(16)
        return Recorder.open(state, self._node, boot_id, audit.durability, segment_bytes=audit.segment_bytes)

    def _open_approvals(self) -> Approvals:
        """With what an earlier life left pending and granted."""
        settings = self._settings.approvals
        directory = Path(self._settings.state_dir) / DIRECTORY
        try:
            store = Store(directory)
            cases = store.load()
        except OSError as error:
            raise ConfigInvalid(f"approvals cannot be kept in {str(directory)!r}: {error.strerror}") from error
        clock = ForwardClock(time.time, steady, max(map(last_change, cases), default=0.0))
        desk = Desk(Fatigue(settings.max_pending, settings.max_per_minute), cases)
        tell: Callable[[Update], None] = lambda _: None  # noqa: E731
        if settings.webhook is not None:
            from sandboxd.approval.webhook import Webhook  # takes a while

            webhook = Webhook(settings.webhook.url, settings.webhook.token_file, self._node)
            self._webhooks.append(webhook.run)
            tell = webhook.tell
        return Approvals(desk, store, self._recorder, clock.time, new_id, tell, settings.wait_seconds)

    async def _recover(self) -> None:
        """What an earlier daemon supervised cannot be continued: end it, and close its record."""
        adopted = self._runtime.adopted
        await asyncio.gather(*(sandbox.destroy() for sandbox in adopted))
        for execution in self._left_open:
            await self._recorder.record(recovery.closing_event(execution))
        known = {sandbox.sandbox_id for sandbox in adopted} | {execution.sandbox_id for execution in self._left_open}
        if known:
            log.warning("ended what an earlier daemon left", extra={"sandboxes": len(known)})
        mode = self._runtime.hello.mode
        await self._recorder.record(DaemonStarted(*NODE_EVENT, __version__, mode, len(known), self._profiles.names()))

    async def _prove_sinks(self) -> None:
        """A receiver may come up later than this node: that is no mistake in the configuration."""
        for settings in self._settings.sinks:
            sink: Sink = plugin.implementation("sink", settings.type).create(settings, self._node)
            self._sinks.append((settings, sink))
            if settings.required:
                try:
                    async with asyncio.timeout(PROVE_SECONDS):
                        await sink.send(())
                except (OSError, SinkUnavailable, SinkRefused) as error:
                    for _, made in self._sinks:
                        await made.close()
                    said = str(error) or f"no answer within {PROVE_SECONDS:g} s"
                    raise AuditUnavailable(f"required sink {settings.name!r} does not accept: {said}") from error

    def _feed(self, settings: SinkSettings, sink: Sink) -> Feed:
        return Feed(self._recorder, sink, settings, Path(self._settings.state_dir) / "cursors")

    def _confirmed(self) -> int:
        """Up to which record every required sink has all, so that retention may take it."""
        return min((feed.confirmed for feed in self._feeds if feed.required), default=sys.maxsize)

    async def _open_socket(self) -> Server:
        hello = self._runtime.hello
        runtimes = {Isolation.PROCESS: self._runtime}
        self._executor = Executor(
            lambda: self._profiles,
            self._gate,
            runtimes,
            self._recorder,
            self._admission,
            self._registry,
            self._analyser,
            LoopClock(asyncio.get_running_loop()),
            refusals=self._refusals,
            trace=self._open_telemetry(),
            redactions=Redactions(
                self._settings.redaction.catalogue, self._settings.redaction.requests, self._recorder.digest.of
            ),
        )
        self._readiness = Readiness(self._admission, self._recorder, self._gate)
        return await serve(
            ServerConfig(self._settings.socket_path, self._settings.allowed_uids),
            executor=self._executor,
            registry=self._registry,
            profiles=lambda: self._profiles,
            runtimes=runtimes,
            policy=self._rollout,
            facts=NodeFacts(__version__, self._node, hello.kernel, hello.mode),
            approvals=self._approvals,
            voting=Voting(self._gate, self._approvals, self._recorder),
            responder=self._responder,
            reasons=self._readiness.reasons,
            audit=self._audit,
            sinks=lambda: tuple(feed.status for feed in self._feeds),
        )

    def _open_response(self) -> "response_endpoint.Endpoint | None":
        """Where events from outside are answered; as the metrics, after the API's socket."""
        if self._settings.response.listen is None:
            return None
        from sandboxd.response import endpoint  # takes a while, and not everybody is told of events

        return endpoint.Endpoint(self._settings.response, self._responder, new_id, time.monotonic)

    def _open_telemetry(self) -> Callable[[TraceContext], Trace]:
        settings = self._settings.telemetry
        if settings.otlp is None:
            return Untraced
        from sandboxd.telemetry.exporter import Exporter  # takes a while

        self._exporter = Exporter(settings, settings.otlp, __version__, self._node)
        return self._exporter.trace

    def _open_metrics(self, server: Server) -> "Endpoint | None":
        """After the API's socket, whose lock and directory are then ours."""
        place, registry = self._settings.metrics.place, None
        if self._tally is not None:
            registry = self._registry_of(server, self._tally)
        if self._exporter is not None:
            self._exporter.begin(registry if self._settings.telemetry.measures else None)
        if place is None or registry is None:
            return None
        from sandboxd.metrics import endpoint, exposition  # as below

        return endpoint.Endpoint(place, exposition.pages(registry), self._readiness.reasons)

    def _registry_of(self, server: Server, tally: Tally) -> "CollectorRegistry":
        from sandboxd.metrics import exposition  # takes a while, and not everybody reads it

        sources = exposition.Sources(
            version=__version__,
            mode=self._runtime.hello.mode,
            slots=self._settings.limits.max_concurrent,
            stock=lambda: self._runtime.offered,
            tally=tally,
            policy=self._rollout.facts,
            admission=self._admission,
            approvals=self._approvals,
            analyser=self._analyser,
            recorder=self._recorder,
            feeds=self._feeds,
            server=server,
            exporter=self._exporter,
        )
        return exposition.registry(sources)

    # --- profiles and policy

    async def _load_profiles(self, templates: tuple[tuple[str, str], ...] | None = None) -> ProfileSet:
        """The profiles on disk, once the spawner has compiled the very same ones."""
        exported = (directory for sink in self._settings.sinks for directory in sink.hidden)
        protected = (self._settings.state_dir, str(self._settings.socket_path.parent), *exported)
        paths = self._settings.profile_paths
        loaded = load_profiles(paths, protected=protected, filters_proved=True)
        if _digests(loaded) != dict(self._runtime.hello.templates if templates is None else templates):
            # They changed after the spawner read them.
            templates = await self._runtime.reload()
            loaded = load_profiles(paths, protected=protected, filters_proved=True)
            if _digests(loaded) != dict(templates):
                raise ConfigInvalid("profiles change while they are being read; reload once they are written")
        return loaded

    def _spawn_reload(self, templates: tuple[tuple[str, str], ...]) -> None:
        for _, sink in self._sinks:
            if isinstance(sink, Reopens):
                sink.reopen()
        task = asyncio.create_task(self._reload(templates))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self, templates: tuple[tuple[str, str], ...]) -> None:
        """Both or neither: what is wrong with one leaves the other as it was, too."""
        async with self._reloading:
            try:
                profiles = await self._load_profiles(templates)
                engine = await self._rollout.reload()
            except (SandboxdError, OSError) as error:
                log.error("reload failed, everything stays as it was", extra={"error": str(error)})
                await self._record_reload(self._profiles, str(error), ok=False)
                self._runtime.ready(f"{self._status}; the last reload failed, everything is as it was")
                return
            self._profiles = profiles
            former = await self._rollout.replace(engine)
            log.info("reloaded", extra={"profiles": profiles.names(), "policy_revision": engine.revision})
            await self._record_reload(profiles, "", ok=True)
            self._runtime.ready(self._status)
            await former.close()

    async def _record_reload(self, profiles: ProfileSet, message: str, *, ok: bool) -> None:
        try:
            await self._recorder.record(ConfigReloaded(*NODE_EVENT, profiles.names(), ok, message))
        except AuditUnavailable as error:
            log.error("reload is not on record", extra={"error": str(error)})

    # --- end

    async def _drain(self, server: Server, grace_seconds: float) -> None:
        """Refuse new work, let what runs end by itself for that long, then end it."""
        log.info("draining", extra={"grace_seconds": grace_seconds, "executions": self._registry.living})
        self._admission.drain()
        self._approvals.close()
        await server.drain()
        for seconds in (grace_seconds, STOP_SECONDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._executor.settled()
            self._registry.end_all(EndReason.NODE_SHUTDOWN)

    async def _record_stop(self, reason: str) -> None:
        try:
            await self._recorder.record(DaemonStopped(*NODE_EVENT, reason))
        except AuditUnavailable as error:
            log.error("stop is not on record", extra={"error": str(error)})


async def _end(feeds: Sequence[asyncio.Task[None]]) -> None:
    """Give sinks a moment for the last records; what they do not take is sent after the next start."""
    if not feeds:
        return
    await asyncio.sleep(LAST_RECORDS_SECONDS)
    for feed in feeds:
        feed.cancel()
    await asyncio.wait(feeds, timeout=STOP_SECONDS)


def _digests(profiles: ProfileSet) -> dict[str, str]:
    return {profile.name: profile.digest for profile in profiles}


async def _main(config_path: Path | None, sock: socket.socket) -> int:
    runtime = await ProcessRuntime.connect(sock)
    settings = config.load(config_path, as_root=runtime.hello.mode == "root")
    logs.set_up(settings.log.level, settings.log.format)
    return await Daemon(settings, runtime).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 after a drain, 78 if the configuration, a profile or a policy is wrong, else 70."""
    parser = argparse.ArgumentParser(prog="sandboxd.daemon", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--spawner-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    logs.set_up("info", "json")
    try:
        # About a tenth of an execution faster than asyncio's own loop.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_main(options.config, socket.socket(fileno=options.spawner_fd)))
    except (ConfigInvalid, ProfileInvalid, PolicyInvalid) as error:
        log.error("cannot start", extra={"reason": error.reason, "error": error.message})
        return EX_CONFIG
    except (SandboxdError, OSError) as error:
        log.error("stopped", extra={"error": str(error)})
        return EX_SOFTWARE


if __name__ == "__main__":
    sys.exit(main())
