import pytest

from sandboxd import config
from tests.unit.settings.complaints import complaint


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        ("url: 'http://hooks.example.org'", "webhook.url: can be read on its way; use https://HOST"),
        ("url: 'http://localhost.example.org'", "webhook.url: can be read on its way"),
        ("url: 'http://10.0.0.1'", "webhook.url: can be read on its way"),
        ("url: 'unix:///s'", "webhook.url: can be read on its way"),
        ("url: 'file:///etc/passwd'", "webhook.url: can be read on its way"),
        ("url: 'https://'", "webhook.url: can be read on its way"),
        ("url: 'https://me:secret@x'", "webhook.url: holds a user or a fragment"),
        ("url: 'https://x:port'", "webhook.url: is not a URL"),
        ("url: 'https://x', token_file: token", "webhook.token_file: must be an absolute path"),
        ("{}", "webhook"),
    ],
)
def test_complaint_about_the_webhook_names_what_would_mend_it(webhook: str, expected: str) -> None:
    found = complaint(f"approvals:\n  max_pending: 5\n  webhook: {{{webhook}}}\n")
    assert expected in found
    assert found.startswith("c.yaml:3: approvals.webhook")


@pytest.mark.parametrize(
    "url", ["https://hooks.example.org/a?b=c", "http://127.0.0.1:9", "http://[::1]:9", "http://localhost"]
)
def test_ways_to_a_webhook_are_taken(url: str) -> None:
    found = config.parse(f"approvals: {{webhook: {{url: '{url}', token_file: /t}}}}\n".encode(), "c.yaml").approvals
    assert found.webhook is not None and found.webhook.url == url
    assert (found.wait_seconds, found.max_pending, found.max_per_minute) == (0.0, 20, 10)
