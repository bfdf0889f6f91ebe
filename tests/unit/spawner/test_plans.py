"""A launch and an execution may only tighten what the template says."""

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from sandboxd.spawner import plans
from tests.unit.spawner.spawner_rig import ASSIGNED, CEILINGS, EXECUTE, LAUNCH, PREPARED, TEMPLATE

LOADED = {TEMPLATE.digest: PREPARED}
OF_A_LAUNCH = ("memory_bytes", "pids", "cpus", "workspace_bytes", "workspace_inodes", "tmp_bytes", "tmp_inodes")
OF_AN_EXECUTION = ("open_files", "file_size_bytes", "cpu_seconds")


def test_every_ceiling_is_held_by_one_of_the_two_checks() -> None:
    assert {field.name for field in dataclasses.fields(CEILINGS)} == {*OF_A_LAUNCH, *OF_AN_EXECUTION}


@pytest.mark.parametrize("name", OF_A_LAUNCH)
def test_launch_may_be_at_a_ceiling_and_not_above_it(name: str) -> None:
    ceiling = getattr(CEILINGS, name)
    change: dict[str, Any] = {name: ceiling}
    assert plans.check(replace(LAUNCH, **change), LOADED) is PREPARED
    for wrong in (ceiling * 2, ceiling + 1, 0, -1, float("nan")):
        change = {name: wrong}
        with pytest.raises(plans.LaunchRefused, match=name) as refusal:
            plans.check(replace(LAUNCH, **change), LOADED)
        assert refusal.value.reason == "above_ceiling"


@pytest.mark.parametrize("name", OF_AN_EXECUTION)
def test_execution_may_be_at_a_ceiling_and_not_above_it(name: str) -> None:
    ceiling = getattr(CEILINGS, name)
    for asked, objected in (
        (ceiling, False),
        (ceiling * 2, True),
        (ceiling + 1, True),
        (0, True),
        (float("nan"), True),
    ):
        change: dict[str, Any] = {name: asked}
        assert (name in plans.objection(replace(EXECUTE, **change), TEMPLATE, ASSIGNED)) == objected


@pytest.mark.parametrize("name", ["memory_bytes", "pids"])
def test_execution_must_have_as_rlimit_what_no_cgroup_holds(name: str) -> None:
    most = 1000
    change: dict[str, Any] = {name: most}
    uncontrolled = replace(ASSIGNED, **change)
    for asked, objected in ((most, False), (1, False), (most + 1, True), (0, True), (-1, True)):
        change = {name: asked}
        assert (name in plans.objection(replace(EXECUTE, **change), TEMPLATE, uncontrolled)) == objected


@pytest.mark.parametrize("name", ["memory_bytes", "pids"])
def test_execution_may_have_any_rlimit_or_none_where_a_cgroup_holds(name: str) -> None:
    for asked, objected in ((0, False), (1, False), (1 << 40, False), (-1, True)):
        change: dict[str, Any] = {name: asked}
        assert (name in plans.objection(replace(EXECUTE, **change), TEMPLATE, ASSIGNED)) == objected


def test_network_may_be_none_or_the_templates() -> None:
    closed = {TEMPLATE.digest: replace(PREPARED, template=replace(TEMPLATE, network="none"))}
    plans.check(replace(LAUNCH, network="loopback"), LOADED)
    plans.check(replace(LAUNCH, network="none"), closed)
    for network, prepared in (("loopback", closed), ("host", LOADED), ("", LOADED)):
        with pytest.raises(plans.LaunchRefused, match="wider"):
            plans.check(replace(LAUNCH, network=network), prepared)


def test_unknown_template_is_refused() -> None:
    with pytest.raises(plans.LaunchRefused) as refusal:
        plans.check(replace(LAUNCH, template=""), LOADED)
    assert refusal.value.reason == "template_unknown"


def test_slots_are_those_whose_uid_is_a_payloads() -> None:
    assert [slot for slot in range(-1001, 1001) if plans.is_slot(slot)] == list(range(15))
