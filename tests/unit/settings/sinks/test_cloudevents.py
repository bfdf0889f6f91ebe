import pytest

from sandboxd import config
from sandboxd.settings.sinks.cloudevents import CloudEventsSettings
from tests.unit.settings.complaints import complaint


def test_a_sink_of_cloudevents_takes_what_any_server_takes() -> None:
    text = b"""
sinks:
  - {type: cloudevents, url: "https://broker.example/ns/default", mode: batched, batch_events: 7, required: true,
     token_file: /token, compression: true, filter: {rules: [policy.decided]}}
"""
    (found,) = config.parse(text, "c.yaml").sinks
    assert isinstance(found, CloudEventsSettings)
    assert (found.name, found.required, found.mode, found.batch_events) == ("cloudevents", True, "batched", 7)
    assert (found.batch_bytes, found.token_file, found.filter.rules) == (512 * 1024, "/token", ("policy.decided",))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", "url: field required"),
        ("url: 'http://h:1', mode: binary", "mode: input should be 'structured' or 'batched'"),
        ("url: 'http://h:1', connections: 0", "connections"),
        ("url: 'http://h:1', batch_events: 0", "batch_events"),
        ("url: 'http://h:1', batch_bytes: 100", "batch_bytes"),
        ("url: 'http://h:1', token_file: /t", "can be read on its way"),
        ("url: 'http://h:1', batch: 3", "unknown key"),
    ],
)
def test_complaint_names_what_is_wrong_with_it(keys: str, expected: str) -> None:
    assert expected in complaint(f"sinks:\n  - {{type: cloudevents, {keys}}}\n")
