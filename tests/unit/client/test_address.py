from pathlib import Path

import pytest

from sandboxd import config
from sandboxd.client import Client, InvalidRequest, Tls
from sandboxd.client.address import default_address, metadata, socket_path, target


def test_environment_names_the_daemon() -> None:
    assert default_address({"SANDBOXD_ADDRESS": "unix:/x"}, 1000) == "unix:/x"


def test_default_is_the_socket_of_this_user() -> None:
    assert default_address({}, 0) == "unix:/run/sandboxd/sandboxd.sock"
    assert default_address({"XDG_RUNTIME_DIR": "/r"}, 0) == "unix:/run/sandboxd/sandboxd.sock"
    assert default_address({"XDG_RUNTIME_DIR": "/r"}, 1000) == "unix:/r/sandboxd/sandboxd.sock"


@pytest.mark.parametrize(
    "environ",
    [
        {"XDG_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s", "HOME": "/h"},
        {"XDG_STATE_HOME": "/s", "HOME": "/h"},
        {"XDG_STATE_HOME": "relative", "XDG_RUNTIME_DIR": "relative", "HOME": "/h"},
        {"HOME": "/h"},
    ],
    ids=" ".join,
)
def test_client_looks_where_a_daemon_of_the_same_user_listens(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert default_address(environ, 1000) == f"unix:{config.load(None, as_root=False).socket_path}"


def test_user_without_a_home_is_told_what_to_set() -> None:
    with pytest.raises(InvalidRequest, match="SANDBOXD_ADDRESS"):
        default_address({}, 4_000_000_000)


@pytest.mark.parametrize("address", ["/a/b", "unix:/a/b", "unix:///a/b"])
def test_every_spelling_of_a_socket_is_one_target(address: str) -> None:
    assert target(address, None, None) == "unix:/a/b"


def test_token_never_travels_in_the_clear() -> None:
    with pytest.raises(InvalidRequest, match="token would travel in the clear"):
        Client("localhost:5000", token="t")


def test_plaintext_tcp_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="without tls"):
        Client("localhost:5000")


def test_tcp_with_tls_is_accepted() -> None:
    assert target("node.example:7443", "t", Tls()) == "node.example:7443"


def test_tls_on_a_unix_socket_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="makes no sense"):
        target("/a", None, Tls())


def test_token_is_sent_as_bearer() -> None:
    assert metadata("t") == (("authorization", "Bearer t"),)
    assert metadata(None) == ()


def test_socket_path_is_known_for_unix_targets_only() -> None:
    assert socket_path("unix:/a/b") == Path("/a/b")
    assert socket_path("h:1") is None
