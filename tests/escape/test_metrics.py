"""Row N13 once more: the daemon's metrics, at a port of the host's loopback and at a socket beside the API's.

Both are open to whoever is on the host and may; a sandbox is not there, with and without a loopback of its own.
"""

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import RunningDaemon, start_daemon
from tests.escape.attempt import Attempt, Network, check_control, unconfined
from tests.escape.confined import Confined
from tests.modes import EACH, need_mode
from tests.opa import free_port

UNREACHED = ("ENETUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL")


@pytest.fixture(params=EACH, ids=str)
def at_port(request: pytest.FixtureRequest) -> Iterator[tuple[RunningDaemon, int]]:
    need_mode(request.param)
    port = free_port()
    with start_daemon(request.param, f"metrics: {{listen: '127.0.0.1:{port}'}}\n") as daemon:
        yield daemon, port


def test_n13_the_daemons_metrics_port_is_not_reached(at_port: tuple[RunningDaemon, int], outside: Path) -> None:
    daemon, port = at_port
    with daemon.client() as client:
        for profile in ("default", "build"):  # without and with a loopback of its own
            seen = Confined(daemon, client).probe("sockets", ("connect_tcp", str(port), "127.0.0.1"), profile=profile)
            assert seen.answer in UNREACHED, seen
    control = unconfined(outside, "sockets", ("connect_tcp", str(port), "127.0.0.1"), Network.HOST)
    check_control(Attempt("N13", "connect_tcp", UNREACHED), control)
    host = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    host.request("GET", "/metrics")
    assert b"sandboxd_executions_started_total 2.0" in host.getresponse().read(), "the control: the host reads it"
    host.close()


@pytest.fixture(params=EACH, ids=str)
def at_socket(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    need_mode(request.param)
    with start_daemon(request.param, "metrics: {listen: 'unix://@RUN@/metrics.sock'}\n") as daemon:
        yield daemon


def test_n13_the_daemons_metrics_socket_is_not_visible(at_socket: RunningDaemon) -> None:
    path = at_socket.socket.with_name("metrics.sock")
    with at_socket.client() as client:
        seen = Confined(at_socket, client).probe("sockets", ("connect_path", str(path)))
        assert seen.answer in ("ENOENT", "EACCES"), seen
    with socket.socket(socket.AF_UNIX) as host:
        host.connect(str(path))  # the control
