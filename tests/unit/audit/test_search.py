import pytest

from sandboxd.audit.search import Search, matches
from sandboxd.sink.base import FieldValue, Record

TIME = "2026-01-02T03:04:05.000000006Z"
FIELDS: tuple[tuple[str, FieldValue], ...] = (
    ("verdict", "deny"),
    ("command", 'curl "HTTP://Straße.example" %_\n\0end'),
    ("labels", (("team", "Blue"), ("n", 7))),
    ("wall_seconds", 1.25),
    ("remembered", False),
    ("odd", "caf\udce9"),
)
RECORD = Record(
    seq=5,
    boot="b",
    node="n",
    time=TIME,
    rule="policy.decided",
    priority="Warning",
    ids=(("tenant", "acme"), ("execution_id", "e1"), ("sandbox_id", "s1"), ("trace_id", "0af7")),
    fields=FIELDS,
)


@pytest.mark.parametrize(
    "search",
    [
        Search(),
        Search(since=TIME, until="2026-01-02T03:04:05.000000007Z"),
        Search(tenant="acme", execution_id="e1", sandbox_id="s1", verdict="deny"),
        Search(rule="policy.decided"),
        Search(rule="policy.*"),
        Search(rule="*"),
        Search(minimum_priority="Warning"),
        Search(minimum_priority="Debug"),
        Search(text="strasse.EXAMPLE"),
        Search(text='curl "http'),
        Search(text="%_\n\0end"),
        Search(text="blue"),
        Search(text="7"),
        Search(text="1.25"),
        Search(text="FALSE"),
        Search(text="0AF7"),
        Search(text="caf\udce9"),
    ],
)
def test_a_record_is_found_by_what_it_is(search: Search) -> None:
    assert matches(search, RECORD)


@pytest.mark.parametrize(
    "search",
    [
        Search(since="2026-01-02T03:04:05.000000007Z"),
        Search(until=TIME),
        Search(tenant="acm"),
        Search(execution_id="e1*"),
        Search(sandbox_id="e1"),
        Search(verdict="allow"),
        Search(rule="policy"),
        Search(rule="decided*"),
        Search(rule="policy.?ecided"),
        Search(minimum_priority="Error"),
        Search(text="curl%"),
        Search(text=".*"),
        Search(text="deny\ncurl"),
        Search(text="policy.decided"),
        Search(tenant="acme", verdict="allow"),
    ],
)
def test_no_condition_is_a_pattern_and_each_has_to_hold(search: Search) -> None:
    assert not matches(search, RECORD)


def test_what_is_no_priority_of_ours_is_the_least_urgent() -> None:
    strange = Record(1, "", "", TIME, "r", "whatever", (), ())
    assert matches(Search(), strange)
    assert not matches(Search(minimum_priority="Debug"), strange)
