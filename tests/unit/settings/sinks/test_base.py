import pytest

from sandboxd import config
from tests.unit.settings.complaints import complaint


def test_a_sink_is_named_by_its_type_unless_it_has_a_name() -> None:
    text = b"sinks: [{type: stdout}, {type: stdout, name: second, filter: {rules: [policy.*], priority: Warning}}]"
    first, second = config.parse(text, "c.yaml").sinks
    assert (first.name, first.required, first.filter.priority) == ("stdout", False, "Debug")
    assert (second.name, second.filter.rules, second.filter.priority) == ("second", ("policy.*",), "Warning")


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        ("{type: stdout, name: ../x}", "name"),
        ("{type: stdout, name: A}", "name"),
        ("{type: stdout, filter: {rules: ['*']}}", "filter.rules.0"),
        ("{type: stdout, filter: {rules: [policy]}}", "filter.rules.0"),
        ("{type: stdout, filter: {rules: [polcy.decided]}}", "filter.rules.0: is no event's rule; docs/events.md"),
        ("{type: stdout, filter: {rules: [polcy.*]}}", "filter.rules.0: is no event's rule; docs/events.md"),
        ("{type: stdout, filter: {priority: warning}}", "filter.priority"),
        ("{type: stdout, filter: {rule: [x.y]}}", "unknown key"),
        ("{type: nothing}", "sinks.0"),
        ("{}", "sinks.0"),
        ("1", "sinks.0"),
    ],
)
def test_complaint_names_what_is_wrong_with_a_sink(sink: str, expected: str) -> None:
    found = complaint(f"sinks:\n  - {sink}\n")
    assert expected in found
    assert found.startswith("c.yaml:2: sinks.0")
