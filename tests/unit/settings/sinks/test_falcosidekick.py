import pytest

from sandboxd import config
from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from tests.unit.settings.complaints import complaint


def test_a_sink_to_falcosidekick_takes_what_any_server_takes() -> None:
    text = b"""
sinks:
  - {type: falcosidekick, url: "https://sidekick.example:2801", required: true, connections: 2, ca: /ca.pem,
     certificate: /c.pem, key: /k.pem, token_file: /token, headers: {X-Cluster: a}, compression: true,
     filter: {priority: Notice}}
"""
    (found,) = config.parse(text, "c.yaml").sinks
    assert isinstance(found, FalcosidekickSettings)
    assert (found.name, found.required, found.connections) == ("falcosidekick", True, 2)
    assert (found.ca, found.headers, found.filter.priority) == ("/ca.pem", {"X-Cluster": "a"}, "Notice")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", "url"),
        ("url: 'tcp://h:1'", "unknown scheme"),
        ("url: 'http://h:1/?a=b'", "has a query"),
        ("url: 'http://h:1', connections: 0", "connections"),
        ("url: 'http://h:1', connections: 65", "connections"),
        ("url: 'http://h:1', headers: {X: y}", "can be read on its way"),
        ("url: 'http://h:1', batch: 3", "unknown key"),
    ],
)
def test_complaint_names_what_is_wrong_with_it(keys: str, expected: str) -> None:
    assert expected in complaint(f"sinks:\n  - {{type: falcosidekick, {keys}}}\n")
