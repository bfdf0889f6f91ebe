from pathlib import Path

import pytest

from sandboxd.listening import PATH_MAX, Loopback, address, place


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9464", Loopback("127.0.0.1", 9464)),
        ("127.3.2.1:1", Loopback("127.3.2.1", 1)),
        ("[::1]:65535", Loopback("::1", 65535)),
        ("unix:///run/sandboxd/metrics.sock", Path("/run/sandboxd/metrics.sock")),
    ],
)
def test_loopback_and_paths_are_places(text: str, found: Loopback | Path) -> None:
    assert place(text) == found


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "[fe80::1]:9464", "128.0.0.1:9464", "169.254.169.254:80"],
)
def test_what_others_can_reach_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(ValueError, match=r"can be reached from elsewhere, .* use 127\.0\.0\.1:PORT, with a proxy"):
        place(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no address with a port"),
        ("9464", "no address with a port"),
        (":9464", "no address with a port"),
        ("127.0.0.1", "no address with a port"),
        ("localhost:9464", "no address with a port"),  # a name: who knows what it becomes
        ("::1:9464", "no address with a port"),
        ("127.0.0.1:x", "no address with a port"),
        ("127.0.0.1:९४६४", "no address with a port"),
        ("127.0.0.1:9464/metrics", "no address with a port"),
        ("127.0.0.1:9464\n", "no address with a port"),
        ("http://127.0.0.1:9464", "no address with a port"),
        ("127.1:9464", "has no address in it"),
        ("0127.0.0.1:9464", "has no address in it"),  # octal to some
        ("127.0.0.1:0", "no port from 1"),
        ("127.0.0.1:65536", "no port from 1"),
        ("unix://run/metrics.sock", "absolute path"),
        ("unix:///run/../metrics.sock", "absolute path"),
        ("unix:///run/metrics\0", "absolute path"),
        ("unix:///" + PATH_MAX * "x", "too long"),
    ],
)
def test_everything_else_is_named_as_a_mistake(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        place(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [("0.0.0.0:5060", ("0.0.0.0", 5060)), ("[::]:1", ("::", 1)), ("127.0.0.1:65535", ("127.0.0.1", 65535))],
)
def test_any_address_can_be_read(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


@pytest.mark.parametrize("text", ["", "5060", "host:1", "::1:1", "1.2.3:1", "1.2.3.4:0", "1.2.3.4:65536"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="use 127"):
        address(text)
