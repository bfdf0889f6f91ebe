"""Freezing and holding one execution, on fakes; what operators do with it is in `response.test_responder`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandboxd.errors import RuntimeFailed, Unenforceable
from sandboxd.model import EndReason
from sandboxd.suspension import Suspension
from tests.fakes.incidents import Incident, Incidents


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Incidents]:
    made = Incidents(tmp_path)
    yield made
    await made.end()


def of(incident: Incident) -> Suspension:
    assert incident.suspension is not None
    return incident.suspension


async def test_it_is_frozen_once_and_thawed_once(node: Incidents) -> None:
    incident = await node.start()
    assert [await of(incident).freeze(), await of(incident).freeze()] == [True, False]
    assert (of(incident).frozen, node.runtime.paused) == (True, {incident.sandbox_id})
    assert [await of(incident).thaw(), await of(incident).thaw()] == [True, False]
    assert (of(incident).frozen, node.runtime.paused) == (False, set())


async def test_freeze_and_thaw_at_once_leave_one_of_both(node: Incidents) -> None:
    incident = await node.start()
    node.runtime.steps = 3
    await asyncio.gather(*(verb() for verb in (of(incident).freeze, of(incident).thaw) * 5))
    assert of(incident).frozen == (incident.sandbox_id in node.runtime.paused)


async def test_what_failed_is_as_it_was(node: Incidents) -> None:
    incident = await node.start()
    node.runtime.pause_error = RuntimeFailed("no")
    with pytest.raises(RuntimeFailed):
        await of(incident).freeze()
    assert not of(incident).frozen
    node.runtime.pause_error = None
    await of(incident).freeze()
    node.runtime.pause_error = RuntimeFailed("no")
    with pytest.raises(RuntimeFailed):
        await of(incident).thaw()
    assert of(incident).frozen


async def test_what_is_over_is_neither(node: Incidents) -> None:
    incident = await node.start()
    incident.end(EndReason.KILLED)
    for verb in (of(incident).freeze, of(incident).thaw):
        with pytest.raises(Unenforceable) as refused:
            await verb()
        assert refused.value.reason == "already_ended"


async def test_who_goes_away_leaves_no_freeze_half_done(node: Incidents) -> None:
    incident = await node.start()
    node.runtime.steps = 3
    freezing = asyncio.create_task(of(incident).freeze())
    await asyncio.sleep(0)
    freezing.cancel()
    await asyncio.wait({freezing})
    for _ in range(10):
        await asyncio.sleep(0)
    assert of(incident).frozen
    assert incident.sandbox_id in node.runtime.paused
