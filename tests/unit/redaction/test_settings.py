import re
from pathlib import Path

import pytest

from sandboxd.config import Config, parse
from sandboxd.errors import ConfigInvalid
from sandboxd.redaction.patterns import SHIPPED, Source
from sandboxd.redaction.settings import MAX_PATTERNS

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "redaction.md").read_text()


def read(text: str) -> Config:
    return parse(text.encode(), "c.yaml", as_root=True)


def test_patterns_of_the_file_stand_beside_the_shipped_ones() -> None:
    catalogue = read(
        "redaction:\n"
        "  patterns:\n"
        "    ours: {pattern: 'corp_[a-z0-9]{32}', max_bytes: 40}\n"
        "    block: {pattern: BEGIN, until: END, max_bytes: 400}\n"
    ).redaction.catalogue
    assert set(catalogue) == {*SHIPPED, "ours", "block"}
    assert catalogue["ours"] == Source("corp_[a-z0-9]{32}", 40)
    assert catalogue["block"] == Source("BEGIN", 400, "END")


def test_without_a_file_the_shipped_ones_are_taken_out_of_each_request() -> None:
    settings = read("").redaction
    assert set(settings.catalogue) == set(SHIPPED) == set(settings.requests)
    assert read("redaction: {requests: []}\n").redaction.requests == ()


def test_requests_may_name_patterns_of_both_kinds() -> None:
    settings = read("redaction:\n  requests: [ours, jwt]\n  patterns: {ours: {pattern: x, max_bytes: 1}}\n").redaction
    assert settings.requests == ("ours", "jwt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("    ours: {pattern: 'x(', max_bytes: 9}\n", "c.yaml:3: redaction.patterns.ours: pattern at character 2: '('"),
        (
            "    ours: {pattern: '\\b', max_bytes: 9}\n",
            "c.yaml:3: redaction.patterns.ours: pattern at character 2: '\\b'",
        ),
        ("    ours: {pattern: 'x{9}', max_bytes: 3}\n", "c.yaml:3: redaction.patterns.ours: max_bytes is 3"),
        ("    ours: {pattern: x, max_bytes: 0}\n", "c.yaml:3: redaction.patterns.ours: max_bytes is 0"),
        (
            "    ours: {pattern: x, max_bytes: 9, until: y*}\n",
            "c.yaml:3: redaction.patterns.ours: until matches the empty",
        ),
        ("    ours: {pattern: x}\n", "c.yaml:3: redaction.patterns.ours.max_bytes: field required"),
        (
            "    ours:\n      pattern: x\n      max_bytes: 3\n      bytes: 3\n",
            "c.yaml:6: redaction.patterns.ours.bytes: unknown key",
        ),
        ("    jwt: {pattern: x, max_bytes: 9}\n", "c.yaml:3: redaction.patterns.jwt.[key]: is the name of a pattern"),
        ("    Ours: {pattern: x, max_bytes: 9}\n", "c.yaml:3: redaction.patterns.Ours.[key]: is no name for a pattern"),
    ],
)
def test_invalid_pattern_is_refused_with_its_line(text: str, expected: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read(f"redaction:\n  patterns:\n{text}")
    assert str(caught.value).startswith(expected)


def test_unknown_name_in_requests_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read("log: {}\nredaction:\n  requests: [theirs]\n")
    assert str(caught.value).startswith(
        "c.yaml:2: redaction: requests names ['theirs'], which no pattern has; known are"
    )


def test_too_many_patterns_are_refused() -> None:
    patterns = "".join(f"    p{number}: {{pattern: x, max_bytes: 1}}\n" for number in range(MAX_PATTERNS + 1))
    with pytest.raises(ConfigInvalid, match=r"redaction\.patterns: dictionary should have at most 64 items"):
        read(f"redaction:\n  patterns:\n{patterns}")


def test_documented_configuration_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert set(read(example).redaction.patterns) == {"ours", "session", "dump"}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_pattern_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENT
