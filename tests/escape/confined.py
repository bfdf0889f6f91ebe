"""The sandbox as the attacks see it: ships a probe through the real client, runs it, reads how it ended.

Never looks at the sandbox from inside the daemon; what must be seen from the host, each test looks at itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandboxd.client import Client, Result
from tests.daemon import RunningDaemon
from tests.escape.attempt import PROBES, Attempt, Ended, Unseen, command, ended
from tests.escape.trace import Record, check_trace, fields_of, reporting


@dataclass(frozen=True, slots=True)
class Confined:
    """A running daemon and a client of it."""

    daemon: RunningDaemon
    client: Client

    def probe(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        profile: str = "default",
        stdin: bytes = b"",
        limits: Mapping[str, float] | None = None,
    ) -> Ended:
        """How that probe ended in a fresh sandbox: for a look around. An attempt goes by `demand`, with its event."""
        argv = command(module, arguments)
        result = self.run(argv, (module,), profile=profile, stdin=stdin, limits=limits)
        return ended(result.stdout, result.exit_code, result.signal, result.stderr)

    def denied(self, result: Result) -> list[Record]:
        """The events of calls that were refused in it."""
        return fields_of(self.daemon.records_of(result.execution_id), "syscall.denied")

    def run(
        self,
        argv: Sequence[str],
        modules: Sequence[str] = (),
        *,
        profile: str = "default",
        stdin: bytes = b"",
        limits: Mapping[str, float] | None = None,
        collect: Sequence[str] = (),
    ) -> Result:
        """Run argv with the named probes (and their kit) in its workspace."""
        return self.client.run(
            argv, profile=profile, files=shipped(modules), stdin=stdin, limits=limits or {}, collect=collect
        )

    def demand(self, module: str, attempt: Attempt, *, profile: str = "default") -> Ended:
        """The attempt must end as its row says, and once more where refusals are on record, with what the row wants."""
        seen, _ = self._attempted(module, attempt, profile)
        if not isinstance(attempt.trace, Unseen):
            again, execution_id = self._attempted(module, attempt, reporting(profile))
            check_trace(attempt, again, self.daemon.records_of(execution_id))
        return seen

    def _attempted(self, module: str, attempt: Attempt, profile: str) -> tuple[Ended, str]:
        result = self.run(command(module, (attempt.probe, *attempt.argv)), (module,), profile=profile)
        seen = ended(result.stdout, result.exit_code, result.signal, result.stderr)
        assert seen.answer in attempt.must, f"{attempt.name} ended: {seen}; it must be {' or '.join(attempt.must)}"
        return seen, result.execution_id


def shipped(modules: Sequence[str]) -> dict[str, bytes]:
    """The files of a request that carries these probes."""
    names = ("probe_kit", *modules) if modules else ()
    return {f"probes/{name}.py": (PROBES / f"{name}.py").read_bytes() for name in names}
