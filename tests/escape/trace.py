"""What an attempt must leave in the journal, and the profiles under which it does: the shipped ones with all on record.

Everything that a shipped profile's filter can refuse is under `report`, and each exec is asked about, of a policy that
allows it. So a refused call of a new attempt has an event without anybody adding its name here.
"""

import contextlib
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sandboxd.profile.load import load_profiles
from sandboxd.profile.seccomp import known_numbers, never_refused
from tests.daemon import CHECKOUT
from tests.escape.attempt import Asked, Attempt, Denied, Ended, Unseen
from tests.escape.probes.probe_kit import NUMBERS

SHIPPED = CHECKOUT / "profiles"
PROFILE = """\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata:
  name: {name}
  labels: {{sandboxd.io/reviewed: "true"}}
spec:
  description: {parent}, with each refusal on record
  extends: {parent}
  mediate: [process.exec]
  report: [{report}]
"""
# Where init listens, its child must ask for the seals of a plan (F_GET_SEALS), which strict does not let it.
SEALS = """\
  seccomp:
    allow:
      - names: [fcntl]
        args: [{index: 1, one_of: [0, 1, 2, 3, 4, 9, 11, 1030, 1032, 1034]}]
        why: those of strict, and what init needs before the program is there
"""
ADDED = {"default": "", "strict": SEALS}
Record = dict[str, object]


def reporting(profile: str) -> str:
    """The name of this shipped profile with all on record; of those in `ADDED`."""
    return f"reporting-{profile}"


@contextlib.contextmanager
def with_reporting_profiles() -> Iterator[str]:
    """Settings of a daemon that has them beside the shipped ones."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-reporting-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        for parent, added in ADDED.items():
            spec = load_profiles([SHIPPED]).get(parent).spec
            refused = sorted(set(known_numbers().values()) - never_refused(spec.seccomp))
            text = PROFILE.format(name=reporting(parent), parent=parent, report=", ".join(refused)) + added
            Path(directory, f"{parent}.yaml").write_text(text)
        yield f"profiles: {{paths: [{SHIPPED}, {directory}]}}\n"


def check_trace(attempt: Attempt, seen: Ended, records: Sequence[Record]) -> None:
    """The attempt ended so under such a profile, and these are the records of its execution."""
    trace = attempt.trace
    assert not isinstance(trace, Unseen)
    if seen.outcome == "killed":
        (end,) = fields_of(records, "execution.ended")
        assert end["signal"] == signal.Signals[seen.code], end
    elif isinstance(trace, Asked) and not seen.call:
        asked = fields_of(records, "process.exec_decided")
        mine = [event for event in asked if str(event["image"]).endswith(trace.image)]
        assert mine, f"{attempt.name}: nobody was asked about {trace.image!r}, but about {asked}"
        assert {(event["verdict"], event["layer"]) for event in mine} == {("allow", "")}, "policy allows all here"
    else:
        denied = trace if isinstance(trace, Denied) else Denied()
        if seen.code not in denied.unless:
            _check_denied(attempt, denied, seen, fields_of(records, "syscall.denied"))


def _check_denied(attempt: Attempt, trace: Denied, seen: Ended, events: Sequence[Record]) -> None:
    call = trace.call or seen.call
    assert call, f"{attempt.name}: which call is refused? say `trace=Denied(…)`, or `Unseen(…)` and why"
    number = int(call) if call.isdigit() else NUMBERS[call]
    mine = [event for event in events if (event["number"], event["pid"]) == (number, seen.pid)]
    assert mine, f"{attempt.name}: no event says that {call} of {seen.pid} was denied, but {events}"
    for event in mine:
        answer = event["errno"], event["layer"], event["reason"]
        assert answer == (trace.errno or seen.code, "seccomp", "profile"), event
        assert call.isdigit() or event["name"] == call, event
        assert event["suppressed"] == event["count"] - 1  # type: ignore[operator]


def fields_of(records: Sequence[Record], rule: str) -> list[Record]:
    return [record["fields"] for record in records if record["rule"] == rule]  # type: ignore[misc]
