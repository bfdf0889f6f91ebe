"""A daemon whose policy is in a real OPA server: it decides, its loss denies, its return allows again."""

import json
from pathlib import Path

import pytest

from sandboxd.client import Client, PolicyDenied
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.opa import free_port, opa_on_loopback
from tests.skips import need_root

POLICIES = Path(__file__).resolve().parents[2] / "policies"


@pytest.mark.root
def test_a_real_opa_server_decides_for_the_daemon() -> None:
    need_root()
    port = free_port()
    settings = (
        "policy:\n  engine: opa\n  deadline_seconds: 60\n"
        f"  opa: {{url: 'http://127.0.0.1:{port}', breaker_failures: 2, breaker_seconds: 0.001}}\n"
    )
    with opa_on_loopback("http", [POLICIES], port=port) as server, start_daemon(Mode.ROOT, settings) as daemon:
        with daemon.client() as client:
            assert client.run(["/bin/echo", "hello"]).stdout == b"hello\n"
            with pytest.raises(PolicyDenied) as denied:
                client.run(["/bin/true"], env={"AWS_SECRET_ACCESS_KEY": "x"})
            assert "AWS_SECRET_ACCESS_KEY" in denied.value.message_for_agent
            assert client.capabilities().policy_revision == "opa-1.22.2"
            assert client.policy().breaker == "closed"
            server.process.kill()
            server.process.wait()
            for _ in range(3):
                assert refused(client) == "policy_unavailable"
            assert client.policy().breaker == "open"
            with opa_on_loopback("http", [POLICIES], port=port):
                assert client.run(["/bin/echo", "again"]).stdout == b"again\n"
        assert told(daemon) == ["open", "half_open", "open", "half_open", "closed"]


def refused(client: Client) -> str:
    with pytest.raises(PolicyDenied) as caught:
        client.run(["/bin/true"])
    return caught.value.reason


def told(daemon: RunningDaemon) -> list[str]:
    """The states of the breaker, from the daemon's log."""
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    return [line["breaker"] for line in lines if "breaker" in line]
