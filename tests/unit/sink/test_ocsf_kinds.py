import re
from pathlib import Path

import pytest

from sandboxd.action import Action
from sandboxd.event import Event
from sandboxd.model import Verdict
from sandboxd.response.demand import Measure
from sandboxd.sink import ocsf_kinds
from sandboxd.sink.ocsf_kinds import ACTIONS, BASE, FINDING, OTHER, Control, EventClass, Kind, control_of, kind_of
from tests.hostile import KINDS
from tests.ocsf import captions

CLASSES = [value for value in vars(ocsf_kinds).values() if isinstance(value, EventClass)]


@pytest.mark.parametrize("of", CLASSES, ids=lambda of: of.name)
def test_numbers_and_names_are_the_schemas(of: EventClass) -> None:
    assert captions(of.uid, "class_uid") == {of.uid: of.name}
    assert captions(of.uid, "category_uid") == {of.category_uid: of.category}
    known = captions(of.uid, "activity_id")
    assert {number: known[number] for number, _ in of.activities} == dict(of.activities)


def test_names_of_controls_are_the_schemas() -> None:
    actions, dispositions = captions(BASE.uid, "action_id"), captions(BASE.uid, "disposition_id")
    assert {number: actions[number] for number in ocsf_kinds.ACTION_NAMES} == ocsf_kinds.ACTION_NAMES
    assert {number: dispositions[number] for number in ocsf_kinds.DISPOSITION_NAMES} == ocsf_kinds.DISPOSITION_NAMES
    used = {*ocsf_kinds.VERDICTS.values(), *ocsf_kinds.MEASURES.values(), *ocsf_kinds.CONTROLS.values()}
    assert {control.action for control in used} <= set(ocsf_kinds.ACTION_NAMES)
    assert {control.disposition for control in used} <= set(ocsf_kinds.DISPOSITION_NAMES)


def test_names_of_severities_are_the_schemas() -> None:
    severities = captions(BASE.uid, "severity_id")
    assert all(severities[number] == name for number, name in ocsf_kinds.SEVERITIES.values())


@pytest.mark.parametrize("event", KINDS, ids=lambda event: event.rule)
def test_every_kind_of_event_has_a_class(event: type[Event]) -> None:
    assert kind_of(event.rule, "").of is not BASE


def test_rows_are_of_events_and_actions_that_there_are() -> None:
    rules = {event.rule for event in KINDS}
    assert {*ocsf_kinds.RULES, *ocsf_kinds.CONTROLS, *ocsf_kinds.ABOUT_ACTIONS} <= rules
    assert set(ACTIONS) == {action.type for action in Action.__args__}
    assert set(ocsf_kinds.VERDICTS) == set(Verdict)
    assert set(ocsf_kinds.MEASURES) == set(Measure)


@pytest.mark.parametrize("kind", [*ocsf_kinds.RULES.values(), *ACTIONS.values(), *ocsf_kinds.NOUNS.values()], ids=str)
def test_an_activity_is_one_of_its_class(kind: Kind) -> None:
    assert kind.activity == OTHER or kind.activity in dict(kind.of.activities)


def test_a_new_event_goes_by_its_noun_and_a_new_noun_is_a_base_event() -> None:
    assert kind_of("syscall.seen", "").of is FINDING
    assert kind_of("weather.changed", "") == Kind(BASE)
    assert kind_of("policy.decided", "weather.change").of is ocsf_kinds.API


def test_an_action_tells_the_class_only_where_an_event_is_about_one() -> None:
    assert kind_of("policy.decided", "net.connect").of is ocsf_kinds.NETWORK
    assert kind_of("approval.requested", "net.connect").of is ocsf_kinds.API


def test_what_decided_nothing_is_not_told_as_a_decision() -> None:
    assert control_of("policy.shadow_differed", "deny", "") == ocsf_kinds.LOGGED
    assert control_of("policy.decided", "deny", "") == Control(2, 2)
    assert control_of("policy.decided", "perhaps", "") == Control(0, 0)
    assert control_of("response.taken", "", "freeze") == Control(2, 4)
    assert control_of("response.taken", "", "tickle") == Control(0, 0)


def test_published_actions_are_those_of_the_code() -> None:
    document = (Path(__file__).resolve().parents[3] / "docs" / "sinks.md").read_text()
    published = set(re.findall(r"^\| `([a-z.]+)` \| [A-Za-z ]+ \(\d{4}\) \| [A-Za-z ]+ \|$", document, re.MULTILINE))
    assert published == set(ACTIONS)
    for action, kind in ACTIONS.items():
        assert f"| `{action}` | {kind.of.name} ({kind.of.uid}) | {kind.activity_name} |\n" in document
