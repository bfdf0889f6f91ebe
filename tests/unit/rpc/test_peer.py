"""The kernel says who connected; nobody else's word counts."""

import os
import socket

import pytest

from sandboxd.rpc.peer import Peers, bind_name, overflow_uid


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def test_peer_is_this_process(pair: tuple[socket.socket, socket.socket]) -> None:
    peers = Peers(frozenset({os.geteuid()}))
    name, peer = peers.admit(pair[0])
    assert (peer.uid, peer.pid, peer.allowed) == (os.geteuid(), os.getpid(), True)
    assert peers.of(f"unix-abstract:{name}") == peer


def test_uid_that_is_not_listed_is_not_allowed(pair: tuple[socket.socket, socket.socket]) -> None:
    _name, peer = Peers(frozenset({os.geteuid() + 1})).admit(pair[0])
    assert not peer.allowed


def test_uid_that_stands_for_nobody_known_is_never_allowed() -> None:
    assert overflow_uid() not in Peers(frozenset({overflow_uid(), 7})).allowed


@pytest.mark.parametrize("told", ["unix:", "unix:/run/x", "unix-abstract:", "unix-abstract:made-up", "ipv4:1.2.3.4:5"])
def test_connection_that_was_not_named_here_is_nobody(told: str) -> None:
    assert Peers(frozenset({os.geteuid()})).of(told) is None


def test_forgotten_name_is_nobody(pair: tuple[socket.socket, socket.socket]) -> None:
    peers = Peers(frozenset({os.geteuid()}))
    name, _peer = peers.admit(pair[0])
    peers.forget(name)
    peers.forget(name)
    assert peers.of(f"unix-abstract:{name}") is None


def test_names_cannot_be_guessed_from_one_another(pair: tuple[socket.socket, socket.socket]) -> None:
    peers = Peers(frozenset())
    names = {peers.admit(pair[0])[0] for _ in range(100)}
    assert len(names) == 100
    assert {len(name) for name in names} == {32}


def test_bound_name_is_what_the_other_end_sees() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        bind_name(one, "0a" * 16)
        assert one.getsockname() == b"\0" + b"0a" * 16
