"""What an orchestrator learns of a real daemon by asking over HTTP and gRPC: the same, and in time."""

import contextlib
import http.client
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sandboxd.client import PolicyDenied
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.opa import free_port, opa_on_loopback
from tests.skips import need_root

POLICIES = Path(__file__).resolve().parents[2] / "policies"
SECONDS = 120.0
SERVING = (200, "ready\n", "SERVING")


def told(daemon: RunningDaemon, port: int) -> tuple[int, str, str]:
    """What /readyz says, and what gRPC's health check does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection), grpc.insecure_channel(daemon.address) as channel:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        stub: Any = health_pb2_grpc.HealthStub(channel)
        status = stub.Check(health_pb2.HealthCheckRequest())
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(status.status)
        return answer.status, answer.read().decode(), name


def until(daemon: RunningDaemon, port: int, holds: Callable[[tuple[int, str, str]], bool]) -> tuple[int, str, str]:
    deadline = time.monotonic() + SECONDS
    while not holds(found := told(daemon, port)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


@pytest.mark.root
def test_a_policy_server_that_is_lost_and_comes_back_shows_without_a_single_request() -> None:
    need_root()
    port, metrics = free_port(), free_port()
    settings = (
        "policy:\n  engine: opa\n  deadline_seconds: 60\n"
        f"  opa: {{url: 'http://127.0.0.1:{port}', breaker_failures: 1, breaker_seconds: 0.05}}\n"
        f"metrics: {{listen: '127.0.0.1:{metrics}'}}\n"
    )
    with (
        opa_on_loopback("http", [POLICIES], port=port) as server,
        start_daemon(Mode.ROOT, settings) as daemon,
        daemon.client() as client,
    ):
        assert told(daemon, metrics) == SERVING
        server.process.kill()
        server.process.wait()
        with pytest.raises(PolicyDenied):
            client.run(["/bin/true"])
        assert told(daemon, metrics) == (503, "policy_unavailable\n", "NOT_SERVING")
        with opa_on_loopback("http", [POLICIES], port=port):
            assert until(daemon, metrics, lambda found: found[0] == 200) == SERVING
            client.run(["/bin/true"])


@pytest.mark.root
def test_a_node_that_drains_says_so_and_lives() -> None:
    need_root()
    metrics = free_port()
    with start_daemon(Mode.ROOT, f"metrics: {{listen: '127.0.0.1:{metrics}'}}\n") as daemon, daemon.client() as client:
        assert told(daemon, metrics) == SERVING
        running = threading.Thread(target=client.run, args=(["/bin/sleep", "2"],))
        running.start()
        until(daemon, metrics, lambda _: any(record["rule"] == "execution.started" for record in daemon.journal()))
        daemon.process.send_signal(signal.SIGTERM)
        found = until(daemon, metrics, lambda found: found[0] != 200)
        assert found == (503, "draining\n", "NOT_SERVING")
        connection = http.client.HTTPConnection("127.0.0.1", metrics, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
        running.join()
