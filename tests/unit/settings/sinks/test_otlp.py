import pytest

from sandboxd import config
from sandboxd.settings.sinks.otlp import OtlpSettings
from tests.unit.settings.complaints import complaint


@pytest.mark.parametrize("url", ["http://127.0.0.1:4318", "http://127.0.0.1:4318/", "https://o.example/otlp"])
def test_url_is_the_receivers_base(url: str) -> None:
    (found,) = config.parse(f"sinks: [{{type: otlp, url: '{url}', required: true}}]".encode(), "c.yaml").sinks
    assert isinstance(found, OtlpSettings)
    assert (found.name, found.required, found.url) == ("otlp", True, url.removesuffix("/"))


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ("", "url"),
        ("url: 'http://127.0.0.1:4318/v1/logs'", "leave that out"),
        ("url: 'http://127.0.0.1:4318/v1/logs/'", "leave that out"),
        ("url: 'https://o.example/?key=1'", "has a query"),
        ("url: 'grpc://o.example:4317'", "unknown scheme"),
    ],
)
def test_another_url_is_refused(keys: str, wrong: str) -> None:
    found = complaint(f"sinks:\n  - {{type: otlp, {keys}}}\n")
    assert found.startswith("c.yaml:2: sinks.0")
    assert wrong in found
