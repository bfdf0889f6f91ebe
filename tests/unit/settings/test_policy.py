import pytest

from sandboxd import config
from tests.unit.settings.complaints import complaint


@pytest.mark.parametrize(
    ("opa", "expected"),
    [
        ("url: 'ftp://x'", "opa.url: has an unknown scheme; use http, https or unix"),
        ("url: 'opa.example.org:8181'", "opa.url: has an unknown scheme"),
        ("url: ''", "opa.url: has an unknown scheme"),
        ("url: 'http://'", "opa.url: has no host; use http://HOST:PORT"),
        ("url: 'http://x:port'", "opa.url: is not a URL"),
        ("url: 'http://x:99999'", "opa.url: is not a URL"),
        ("url: 'http://[::1'", "opa.url: is not a URL"),
        ("url: 'unix:opa.sock'", "opa.url: must name an absolute path"),
        ("url: 'unix://opa.sock'", "opa.url: must name an absolute path"),
        ("url: 'https://me:secret@x'", "opa.url: is a server and no more; leave out user"),
        ("url: 'https://x?pretty'", "opa.url: is a server and no more"),
        ("url: 'https://x#y'", "opa.url: is a server and no more"),
        ('url: "http://x/a\\r\\nX-Evil: 1"', "opa.url: has characters that a URL cannot have"),
        ("url: 'http://x/é'", "opa.url: has characters that a URL cannot have"),
        ("url: 'https://x', certificate: /c", "certificate and key are two halves of one identity"),
        ("url: 'https://x', key: /k", "certificate and key are two halves of one identity"),
        ("url: 'https://x', ca: ca.pem", "opa.ca: must be an absolute path, got 'ca.pem'"),
        ("url: 'https://x', token_file: token", "opa.token_file: must be an absolute path"),
        ("url: 'http://127.0.0.1', ca: /ca", "ca, certificate and key have no use over http; use https"),
        ("url: 'unix:///s', certificate: /c, key: /k", "have no use over unix"),
        ("url: 'http://10.0.0.1', token_file: /t", "a token over http can be read on its way; use https"),
        ("url: 'http://opa.example.org', token_file: /t", "a token over http can be read on its way"),
        ("url: 'http://localhost.example.org', token_file: /t", "a token over http can be read on its way"),
        ("url: 'https://x', decision: ../v1/policies", "opa.decision"),
        ("url: 'https://x', decision: a//b", "opa.decision"),
        ("url: 'https://x', decision: 'a?b'", "opa.decision"),
        ("url: 'https://x', max_response_bytes: 0", "opa.max_response_bytes"),
        ("url: 'https://x', breaker_failures: 0", "opa.breaker_failures"),
        ("url: 'https://x', breaker_seconds: .inf", "opa.breaker_seconds"),
        ("url: 'https://x', cacheable: 'yes'", "opa.cacheable"),
        ("url: 'https://x', tokn: x", "opa.tokn: unknown key"),
    ],
)
def test_complaint_about_the_opa_server_names_what_would_mend_it(opa: str, expected: str) -> None:
    found = complaint(f"policy:\n  engine: opa\n  opa: {{{opa}}}\n")
    assert expected in found
    assert found.startswith("c.yaml:3: policy.opa")


@pytest.mark.parametrize(
    "opa",
    [
        "url: 'http://127.0.0.1:8181', token_file: /t",
        "url: 'http://127.9.9.9/opa/', token_file: /t",
        "url: 'http://[::1]:8181', token_file: /t",
        "url: 'http://localhost:8181', token_file: /t",
        "url: 'unix:///run/opa/opa.sock', token_file: /t",
        "url: 'https://opa.example.org', ca: /ca, certificate: /c, key: /k, token_file: /t",
        "url: 'http://opa.example.org'",
    ],
)
def test_ways_to_an_opa_server_are_taken(opa: str) -> None:
    found = config.parse(f"policy: {{engine: opa, opa: {{{opa}}}}}\n".encode(), "c.yaml").policy.opa
    assert found is not None
    assert (found.decision, found.cacheable, found.max_response_bytes) == ("sandboxd/decision", False, 1 << 20)
    assert found.private is (found.url != "http://opa.example.org")


def test_a_node_that_is_told_to_run_nothing_may_keep_its_opa_server_configured() -> None:
    text = "policy: {engine: deny_all, opa: {url: 'http://127.0.0.1:8181'}}\n"
    assert config.parse(text.encode(), "c.yaml").policy.engine == "deny_all"
