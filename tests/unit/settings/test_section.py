import pytest

from sandboxd.settings.section import is_loopback, split_url


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("url", ["http://x:port", "http://[::1", "http://x/\u00e9", "http://x/a b", "http://x/\r\n"])
def test_what_no_url_can_be_is_told(url: str) -> None:
    with pytest.raises(ValueError, match=r"is not a URL|cannot have"):
        split_url(url)
