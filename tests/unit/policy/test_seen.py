from dataclasses import replace

import pytest

from sandboxd.action import Action, ExecutionStart, FilePut, NetConnect, SandboxRestore, SecretUse
from sandboxd.policy.document import ACTIONS, Seen
from sandboxd.policy.seen import NOTHING, Sightings, raised_by
from tests.fakes.policy import start

SECRET = SecretUse("token", "api.example.org", 443)
CONNECT = NetConnect("tcp", "api.example.org", "192.0.2.1", 443)
PUT = FilePut("/workspace/a", 0o644, 1, "")
VOUCHED = (("sandboxd.io/trusted-input", "true"),)


@pytest.mark.parametrize(
    ("action", "flags"),
    [
        (SECRET, Seen(secret=True)),
        (CONNECT, Seen(egress=True)),
        (PUT, Seen(untrusted_input=True)),
        (SandboxRestore("0" * 32, in_place=False), Seen(secret=True, untrusted_input=True, egress=True)),
        (start(), NOTHING),
        (replace(start(), files=("a",)), Seen(untrusted_input=True)),
        (replace(start(), stdin_bytes=1), Seen(untrusted_input=True)),
        (replace(start(), files=("a",), stdin_bytes=1, labels=VOUCHED), NOTHING),
        (replace(start(), files=("a",), labels=(("sandboxd.io/trusted-input", "yes"),)), Seen(untrusted_input=True)),
    ],
    ids=str,
)
def test_what_an_action_brings_in_or_lets_out_raises_its_flag(action: Action, flags: Seen) -> None:
    assert raised_by(action) == flags


def test_no_other_action_raises_any() -> None:
    kinds = [kind for kind in ACTIONS if kind is not ExecutionStart]
    raising = {kind.type for kind in kinds if raised_by(object.__new__(kind)) is not NOTHING}
    assert raising == {"secret.use", "net.connect", "file.put", "sandbox.restore"}


def test_flags_only_rise_and_go_with_their_sandbox() -> None:
    sightings = Sightings()
    sightings.begin("a")
    sightings.begin("b")
    assert sightings.rise("a", raised_by(SECRET))
    assert sightings.rise("a", raised_by(CONNECT))
    assert sightings.rise("a", NOTHING)
    assert (sightings.of("a"), sightings.of("b")) == (Seen(secret=True, egress=True), NOTHING)
    sightings.end("a")
    sightings.begin("a")
    assert sightings.of("a") == NOTHING


def test_nothing_rises_where_no_sandbox_is_known() -> None:
    sightings = Sightings()
    assert not sightings.rise("a", raised_by(SECRET))
    sightings.begin("a")
    sightings.end("a")
    assert not sightings.rise("a", raised_by(SECRET))
    assert sightings.of("a") is None


def test_what_was_seen_before_is_no_news() -> None:
    """The gate asks anew about whatever was decided while something was seen for the first time, and only then."""
    sightings = Sightings()
    sightings.begin("a")
    sightings.rise("a", raised_by(CONNECT))
    first = sightings.of("a")
    sightings.rise("a", raised_by(CONNECT))
    assert sightings.of("a") is first
