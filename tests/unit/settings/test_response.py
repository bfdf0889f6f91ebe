from pathlib import Path

import pytest

from sandboxd import config
from tests.unit.settings.complaints import complaint

TLS = "certificate: /c, key: /k, client_ca: /ca"
RULES = "rules: {R: freeze}"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("token_file: /t", "has no listen"),
        (f"listen: '127.0.0.1:9', {RULES}", "lets everybody ask who can connect"),
        ("listen: '127.0.0.1:9', token_file: /t", "maps no rule"),
        (f"listen: '0.0.0.0:9', token_file: /t, {RULES}", "can be reached from elsewhere"),
        (f"listen: '0.0.0.0:9', token_file: /t, certificate: /c, key: /k, {RULES}", "can be reached from elsewhere"),
        (f"listen: '[::]:9', token_file: /t, {RULES}", "can be reached from elsewhere"),
        (f"listen: '127.0.0.1:9', token_file: /t, certificate: /c, {RULES}", "two halves of one identity"),
        (f"listen: '127.0.0.1:9', token_file: /t, client_ca: /c, {RULES}", "has no use without TLS"),
        (f"listen: 'unix:///run/sandboxd/r.sock', token_file: /t, {TLS}, {RULES}", "have no use on a unix socket"),
        (f"listen: 'localhost:9', token_file: /t, {RULES}", "is no address with a port"),
        ("listen: '127.0.0.1:9', token_file: /t, rules: {R: thaw}", "rules.R"),
        ("listen: '127.0.0.1:9', token_file: /t, rules: {R: lift}", "rules.R"),
        ("listen: '127.0.0.1:9', token_file: /t, rules: {response.taken: kill}", "would answer its own answers"),
        ("listen: '127.0.0.1:9', token_file: /t, rules: {'': kill}", "rules"),
        (f"listen: '127.0.0.1:9', token_file: t, {RULES}", "must be an absolute path"),
        (f"listen: 'unix:///tmp/r.sock', token_file: /t, {RULES}", "response.listen must be another socket beside"),
        (f"listen: 'unix:///run/x/s.sock', token_file: /t, {RULES}", "response.listen must be another socket beside"),
    ],
)
def test_complaint_names_what_would_mend_it(response: str, expected: str) -> None:
    assert expected in complaint(f"listen: [{{unix: /run/x/s.sock}}]\nresponse: {{{response}}}\n")


def test_metrics_and_responses_need_a_socket_each() -> None:
    listen = "listen: 'unix:///run/x/a.sock'"
    both = f"metrics: {{{listen}}}\nresponse: {{{listen}, token_file: /t, {RULES}}}\n"
    assert "response.listen must be another socket" in complaint(f"listen: [{{unix: /run/x/s.sock}}]\n{both}")


@pytest.mark.parametrize(
    ("response", "place"),
    [
        (f"listen: '127.0.0.1:9', token_file: /t, {RULES}", ("127.0.0.1", 9)),
        (f"listen: '[::1]:9', token_file: /t, {RULES}", ("::1", 9)),
        (f"listen: '0.0.0.0:9', {TLS}, {RULES}", ("0.0.0.0", 9)),
        (f"listen: '192.0.2.1:9', token_file: /t, {TLS}, {RULES}", ("192.0.2.1", 9)),
        (f"listen: 'unix:///run/x/r.sock', token_file: /t, {RULES}", Path("/run/x/r.sock")),
    ],
)
def test_ways_to_ask_are_taken(response: str, place: object) -> None:
    found = config.parse(f"listen: [{{unix: /run/x/s.sock}}]\nresponse: {{{response}}}\n".encode(), "c.yaml").response
    assert (found.place, found.rules) == (place, {"R": "freeze"})


def test_without_the_section_nobody_can_ask() -> None:
    assert config.parse(b"response: {}\n", "c.yaml").response.listen is None
