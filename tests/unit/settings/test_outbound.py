import pytest
from pydantic import ValidationError

from sandboxd.settings.outbound import Outbound


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://sidekick:2801/"},
        {"url": "http://127.0.0.1:2801", "token_file": "/t", "headers": {"X-Key": "a b"}},
        {"url": "https://x", "ca": "/ca", "certificate": "/c", "key": "/k", "token_file": "/t", "headers": {"A": "b"}},
    ],
)
def test_servers_are_taken(settings: dict[str, object]) -> None:
    assert Outbound.model_validate(settings).url == settings["url"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"url": "ftp://x"}, "has an unknown scheme"),
        ({"url": "unix:///s"}, "has an unknown scheme"),
        ({"url": "http://"}, "has no host"),
        ({"url": "https://me:secret@x"}, "holds a user or a fragment"),
        ({"url": "https://x#y"}, "holds a user or a fragment"),
        ({"url": "https://x", "certificate": "/c"}, "two halves of one identity"),
        ({"url": "http://127.0.0.1", "ca": "/ca"}, "have no use over http"),
        ({"url": "http://10.0.0.1", "token_file": "/t"}, "can be read on its way"),
        ({"url": "http://x", "headers": {"X-Key": "a"}}, "can be read on its way"),
        ({"url": "https://x", "headers": {"Host": "y"}}, "sets itself"),
        ({"url": "https://x", "headers": {"content-length": "1"}}, "sets itself"),
        ({"url": "https://x", "headers": {"a b": "c"}}, "is no name of a header"),
        ({"url": "https://x", "headers": {"a": "b\r\nX-Evil: 1"}}, "cannot be a header's value"),
        ({"url": "https://x", "headers": {"a": ""}}, "cannot be a header's value"),
        ({"url": "https://x", "timeout_seconds": 0.0}, "greater than 0"),
    ],
)
def test_complaint_names_what_would_mend_it(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Outbound.model_validate(settings)
