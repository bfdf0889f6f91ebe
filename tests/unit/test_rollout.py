"""A policy coming into force, with real bundles and the real engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandboxd.errors import AuditUnavailable, PolicyInvalid
from sandboxd.event import Event, PolicyReloaded, PolicyReloadFailed, PolicyShadowDiffered, PolicyShadowFailed
from sandboxd.gate import Gate, Subject
from sandboxd.model import Verdict
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from sandboxd.rollout import Rollout
from sandboxd.settings.policy import Policy
from tests.bundles import ALLOW, DENY, public_file, release
from tests.fakes.policy import CALLER, start

SUBJECT = Subject(ProfileFacts("default", "0" * 64, ()), SandboxFacts("s" * 32, "process"))


class Node:
    def __init__(self, rollout: Rollout, gate: Gate, events: list[Event]) -> None:
        self.rollout, self.gate, self.events = rollout, gate, events

    async def reload(self) -> None:
        former = await self.rollout.replace(await self.rollout.reload())
        await former.close()

    async def verdict(self) -> Verdict:
        return (await self.gate.decide(start(), CALLER, SUBJECT)).verdict


@asynccontextmanager
async def node(settings: Policy, state_dir: Path) -> AsyncIterator[Node]:
    events: list[Event] = []

    async def record(event: Event) -> int:
        events.append(event)
        return len(events)

    rollout = Rollout(settings, state_dir, record, clock=lambda: 1000.0 + len(events))
    gate = Gate(await rollout.load())
    try:
        await rollout.attach(gate)
        yield Node(rollout, gate, events)
    finally:
        await rollout.close()
        await gate.engine.close()


def signed(tmp_path: Path, version: int, policy: bytes = ALLOW) -> Policy:
    bundle = release(tmp_path / "b.tar.gz", version, policy)
    return Policy(paths=(str(bundle),), verification_key=str(public_file(tmp_path)), deadline_seconds=5.0)


async def test_newer_release_comes_into_force_and_both_revisions_are_on_record(tmp_path: Path) -> None:
    async with node(signed(tmp_path, 1), tmp_path / "state") as here:
        assert await here.verdict() is Verdict.ALLOW
        release(tmp_path / "b.tar.gz", 2, DENY)
        await here.reload()
        assert await here.verdict() is Verdict.DENY
        assert here.events == [PolicyReloaded("", "", "", "", "r2", "", "rego", "r1", 2)]
        facts = here.rollout.facts()
        assert (facts.engine, facts.revision, facts.version, facts.since) == ("rego", "r2", 2, 1000.0)
        assert [name for name, _ in facts.files] == [".manifest", "policy.rego"]


@pytest.mark.parametrize("wrong", ["older", "unsigned", "broken", "gone"])
async def test_bundle_that_is_wrong_is_told_and_the_last_good_one_decides_on(tmp_path: Path, wrong: str) -> None:
    async with node(signed(tmp_path, 2), tmp_path / "state") as here:
        bundle = tmp_path / "b.tar.gz"
        match wrong:
            case "older":
                release(bundle, 1, DENY)
            case "unsigned":
                bundle.write_bytes(bundle.read_bytes()[:-20])
            case "broken":
                release(bundle, 3, b"package sandboxd\n\ndecision := {")
            case _:
                bundle.unlink()
        with pytest.raises(PolicyInvalid):
            await here.reload()
        assert await here.verdict() is Verdict.ALLOW
        (event,) = here.events
        assert isinstance(event, PolicyReloadFailed)
        assert event.policy_revision == "r2" == here.rollout.facts().revision
        assert event.reason == ("policy_older" if wrong == "older" else "policy_invalid")
        assert here.rollout.facts().last_error == event.message != ""
        release(bundle, 3, DENY)
        await here.reload()
        assert await here.verdict() is Verdict.DENY
        assert here.rollout.facts().last_error == ""


async def test_older_release_is_refused_after_a_restart_too(tmp_path: Path) -> None:
    async with node(signed(tmp_path, 5), tmp_path / "state"):
        pass
    with pytest.raises(PolicyInvalid, match="is release 4, and 5 was in force"):
        async with node(signed(tmp_path, 4), tmp_path / "state"):
            pass
    async with node(signed(tmp_path, 4), tmp_path / "another state") as here:
        assert await here.verdict() is Verdict.ALLOW


async def test_broken_bundle_is_not_remembered_as_a_release(tmp_path: Path) -> None:
    async with node(signed(tmp_path, 1), tmp_path / "state") as here:
        release(tmp_path / "b.tar.gz", 9, b"package sandboxd\n\ndecision := {")
        with pytest.raises(PolicyInvalid):
            await here.reload()
        release(tmp_path / "b.tar.gz", 2)
        await here.reload()


def shadowed(tmp_path: Path, policy: bytes, shadow: bytes) -> Policy:
    for name, text in (("now", policy), ("next", shadow)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "p.rego").write_bytes(text)
    paths = {"paths": (str(tmp_path / "next"),)}
    return Policy.model_validate({"paths": (str(tmp_path / "now"),), "shadow": paths, "deadline_seconds": 5.0})


async def test_shadow_is_asked_beside_and_a_reload_brings_a_new_one(tmp_path: Path) -> None:
    async with node(shadowed(tmp_path, ALLOW, DENY), tmp_path / "state") as here:
        assert await here.verdict() is Verdict.ALLOW
        await _compared(here, 1)
        (event,) = here.events
        assert isinstance(event, PolicyShadowDiffered) and event.shadow_verdict == "deny"
        shadowed(tmp_path, ALLOW, ALLOW)
        await here.reload()
        assert await here.verdict() is Verdict.ALLOW
        await _compared(here, 1)
        assert isinstance(here.events[-1], PolicyReloaded)


async def test_shadow_that_cannot_be_loaded_is_told_and_the_policy_decides(tmp_path: Path) -> None:
    async with node(shadowed(tmp_path, ALLOW, b"package sandboxd\n\ndecision := {"), tmp_path / "state") as here:
        assert await here.verdict() is Verdict.ALLOW
        (event,) = here.events
        assert isinstance(event, PolicyShadowFailed) and event.shadow_revision == ""
        shadow = here.rollout.facts().shadow
        assert shadow is not None and shadow.error == event.message and shadow.revision == ""


async def test_reload_that_cannot_be_recorded_still_takes_place(tmp_path: Path) -> None:
    async def record(event: Event) -> int:
        raise AuditUnavailable("no journal")

    rollout = Rollout(signed(tmp_path, 1), tmp_path / "state", record)
    gate = Gate(await rollout.load())
    await rollout.attach(gate)
    release(tmp_path / "b.tar.gz", 2, DENY)
    await (await rollout.replace(await rollout.reload())).close()
    assert gate.engine.revision == "r2"
    await rollout.close()
    await gate.engine.close()


async def _compared(here: Node, count: int) -> None:
    async with asyncio.timeout(30):
        while (shadow := here.rollout.facts().shadow) is None or shadow.counts.compared < count:
            await asyncio.sleep(0.01)
