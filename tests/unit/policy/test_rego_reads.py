import json
from pathlib import Path

import pytest

from sandboxd.policy import rego_reads
from sandboxd.policy.rego_bundle import read_bundle
from sandboxd.policy.rego_reads import places_read, reader, reads_the_moment

HEAD = "package sandboxd\nimport rego.v1\n"
SHIPPED = Path(__file__).resolve().parents[3] / "policies"


def reads(text: str) -> bool:
    return reads_the_moment([("other.rego", HEAD), ("p.rego", HEAD + text)])


@pytest.mark.parametrize(
    "text",
    [
        "a := input.time",
        'a if { input.time < "2027" }',
        "a := input.sandbox.seen.secret",
        "a := input.sandbox.age_seconds",
        "a := input.sandbox.id",
        "a := input.sandbox",
        "a := input",
        'a := input["time"]',
        "a := input[key]",
        "a := input\n\t.time",
        "a := input . time",
        "import input.sandbox as box",
        "import input as question",
        "a if b with input as {}",
        "f(x) := x\na := f(input)",
        "a := [x | x := input[_]]",
        "a := input.action",
        "a := input.action.agent",
        "a := input.action.agent.tool_use_id",
        'a := input.action["pid"]',
        "a := input.action.pid",
        'a := $"{input.time}"',
        'a := object.get(input, "time", 1)',
    ],
)
def test_whatever_may_see_the_moment_is_found(text: str) -> None:
    assert reads(text)


@pytest.mark.parametrize(
    "text",
    [
        "a := input.action.argv[0]",
        "a := input.action.agent.name",
        "a := input.action.pids",
        "a := input.caller.tenant",
        'a := input.profile.labels["time"]',
        "a := input.node",
        "a := input.api_version",
        "a := input.sandbox.runtime",
        "# input.time",
        'a := "input.time"',
        "a := `input.time`",
        'a := "\\"input.time"',
        "a := data.input.time",
        "a := my_input.time",
    ],
)
def test_what_only_sees_the_question_is_not(text: str) -> None:
    assert not reads(text)


def test_the_shipped_policy_sees_the_question_only() -> None:
    assert not reads_the_moment(read_bundle([SHIPPED]).modules)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a := input.action.argv[0]", True),
        ("a := input.action", True),
        ("a := input", True),
        ("a := input.action.argvs", False),
        ("a := input.caller.tenant", False),
        ("a := 1", False),
    ],
)
def test_reading_of_a_given_place_is_found(text: str, found: bool) -> None:
    assert rego_reads.reads([("p.rego", HEAD + text)], [("action", "argv")]) is found


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a := 1", ()),
        ("a := input.action.argv[0]", (("action", "argv"),)),
        ('a := input.profile.labels["x"]', (("profile", "labels"),)),
        ("a if input.time == input.node", (("node",), ("time",))),
        ("import input.action as act\na := act.type", (("action",),)),
        ('a := "input.time" # input.node', ()),
        ("a := data.input.time", ()),
        ("a := input", None),
        ('a := input["time"]', None),
        ("a := input . time", None),
        ("import input as question", None),
        ("a if b with input as {}", None),
        ('a := object.get(input, "time", 1)', None),
        ('a := $"{input.time}"', None),
    ],
)
def test_places_that_are_read_are_all_that_can_be_seen(text: str, places: tuple[tuple[str, ...], ...] | None) -> None:
    assert places_read([("other.rego", HEAD), ("p.rego", HEAD + text)]) == places


def test_one_module_that_reads_everything_is_enough() -> None:
    assert places_read([("p.rego", HEAD + "a := input.time"), ("q.rego", HEAD + "b := input")]) is None


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a := input", {"a": {"b": 1.5, "c": ["\0é"]}, "d": 30.0}),
        ("a := 1", {}),
        ("a := input.d", {"d": 30.0}),
        ("a := [input.a.b, input.e]", {"a": {"b": 1.5}}),
        ("a := [input.a.c, input.a]", {"a": {"b": 1.5, "c": ["\0é"]}}),
        ("a := input.d.below", {"d": 30.0}),
    ],
)
def test_policy_is_given_the_places_that_it_reads_and_all_below_them(text: str, seen: object) -> None:
    document = json.dumps({"a": {"b": 1.5, "c": ["\0é"]}, "d": 30.0}).encode()
    given = reader([("p.rego", HEAD + text)])(document)
    assert (json.loads(given), given.count(b"30.0")) == (seen, "d" in str(seen))


def test_what_differs_where_nobody_looks_is_the_same_question() -> None:
    read = reader([("p.rego", HEAD + "a := input.a")])
    assert read(b'{"a":1,"b":2}') == read(b'{"b":[3],"a":1}') != read(b'{"a":1.0,"b":2}')
