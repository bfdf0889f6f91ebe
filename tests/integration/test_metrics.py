"""What Prometheus reads of a real daemon: numbers that move with what it does, however its readers behave."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandboxd.client import PolicyDenied
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.opa import free_port, opa_on_loopback
from tests.skips import need_root

POLICIES = Path(__file__).resolve().parents[2] / "policies"
SECONDS = 120.0


class Scrape:
    """One reading."""

    def __init__(self, text: str) -> None:
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)


def scrape(port: int) -> Scrape:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
        return Scrape(answer.read().decode())


def until(port: int, holds: Callable[[Scrape], bool]) -> Scrape:
    """The first reading that is so."""
    deadline = time.monotonic() + SECONDS
    while not holds(found := scrape(port)):
        assert time.monotonic() < deadline, found.samples
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def measured(settings: str = "", mode: Mode = Mode.ROOT) -> Iterator[tuple[RunningDaemon, int]]:
    port = free_port()
    with start_daemon(mode, f"metrics: {{listen: '127.0.0.1:{port}'}}\n{settings}") as daemon:
        yield daemon, port


@pytest.mark.parametrize(
    "mode", [pytest.param(Mode.ROOT, marks=pytest.mark.root), pytest.param(Mode.ROOTLESS, marks=pytest.mark.rootless)]
)
def test_an_execution_moves_the_numbers(mode: Mode) -> None:
    if mode is Mode.ROOT:
        need_root()
    with (
        measured("limits: {max_concurrent: 7}\nruntimes: {process: {blank_stock: 2}}\n", mode) as (daemon, port),
        daemon.client() as client,
    ):
        before = scrape(port)
        assert (
            before("sandboxd_build_info", mode=str(mode).replace("rootless", "rootless-single"), version="0.1.0") == 1
        )
        client.run_code("print(6 * 7)")
        client.run(["/bin/sleep", "60"], limits={"wall_seconds": 0.2})
        with pytest.raises(PolicyDenied):
            client.run(["/bin/true"], env={"AWS_SECRET_ACCESS_KEY": "x"})
        # It still holds its slot when its caller is told, and sinks are a moment behind.
        after = until(
            port,
            lambda now: now("sandboxd_executions_running") == now("sandboxd_sink_lag_events", sink="stdout") == 0,
        )
        until(port, lambda now: now("sandboxd_stock_sandboxes") >= 2)
        start = {"action": "execution.start", "remembered": "false"}

        def moved(name: str, **labels: str) -> float:
            return after(name, **labels) - before(name, **labels)

        assert moved("sandboxd_executions_started_total") == 2
        assert moved("sandboxd_executions_ended_total", end_reason="EXITED") == 1
        assert moved("sandboxd_executions_ended_total", end_reason="WALL_TIMEOUT") == 1
        assert moved("sandboxd_executions_ended_total", end_reason="POLICY_DENIED") == 1
        assert moved("sandboxd_policy_decisions_total", verdict="allow", **start) == 2
        assert moved("sandboxd_policy_decisions_total", verdict="deny", **start) == 1
        assert moved("sandboxd_policy_decision_seconds_count") >= 3
        assert moved("sandboxd_analyses_total", outcome="whole") == 1
        assert moved("sandboxd_rpc_errors_total", code="PERMISSION_DENIED") == 1
        assert moved("sandboxd_sink_sent_events_total", sink="stdout") == moved("sandboxd_journal_sequence") > 10
        assert after("sandboxd_journal_sequence") == len(daemon.journal())
        segments = (daemon.state_dir / "journal").glob("*.jsonl")
        assert after("sandboxd_journal_written_bytes_total") == sum(path.stat().st_size for path in segments)
        assert after("sandboxd_policy_info", engine="rego", revision=client.policy().revision) == 1
        assert (after("sandboxd_execution_slots"), after("sandboxd_journal_available")) == (7, 1)
        assert after("process_resident_memory_bytes") > 1e6


@pytest.mark.root
def test_the_breaker_of_a_server_that_is_gone_shows_and_closes_again() -> None:
    need_root()
    port = free_port()
    settings = (
        "policy:\n  engine: opa\n  deadline_seconds: 60\n"
        f"  opa: {{url: 'http://127.0.0.1:{port}', breaker_failures: 2, breaker_seconds: 0.001}}\n"
    )
    state, trips = "sandboxd_policy_breaker_state", "sandboxd_policy_breaker_trips_total"
    with (
        opa_on_loopback("http", [POLICIES], port=port) as server,
        measured(settings) as (daemon, metrics),
        daemon.client() as client,
    ):
        client.run(["/bin/true"])
        well = scrape(metrics)
        assert (well(state), well(trips)) == (0, 0)
        server.process.kill()
        server.process.wait()
        for _ in range(2):
            with pytest.raises(PolicyDenied):
                client.run(["/bin/true"])
        open_ = scrape(metrics)
        assert (open_(state), open_(trips)) == (2, 1)
        assert open_("sandboxd_policy_failures_total", reason="policy_unavailable") == 2
        with opa_on_loopback("http", [POLICIES], port=port):
            client.run(["/bin/true"])
        closed = scrape(metrics)
        assert (closed(state), closed(trips)) == (0, 1)


@pytest.mark.root
def test_readers_who_misbehave_keep_no_program_from_running() -> None:
    need_root()
    with measured() as (daemon, port), daemon.client() as client:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        nonsense = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for sock in nonsense:
            sock.sendall(b"\x16\x03\x01" + bytes(1000) + b"\r\n\r\n")
        with ThreadPoolExecutor(8) as pool:
            honest = [pool.submit(scrape, port) for _ in range(8)]
            assert client.run(["/bin/echo", "unhindered"]).stdout == b"unhindered\n"
            assert all(scraped.result()("sandboxd_execution_slots") == 256 for scraped in honest)
        for sock in (*silent, *nonsense):
            sock.close()
        warned = [line for line in daemon.log.read_text().splitlines() if '"level"' in line]
        assert {json.loads(line)["level"] for line in warned} <= {"info"}, "readers fill no log"


@pytest.mark.root
def test_a_socket_beside_the_api_is_for_the_daemons_user_and_goes_with_the_daemon() -> None:
    need_root()

    def read(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            sock.connect(str(path))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            with sock.makefile("rb") as answer:
                return answer.read()

    with start_daemon(Mode.ROOT, "metrics: {listen: 'unix://@RUN@/metrics.sock'}\n") as daemon:
        path = daemon.socket.with_name("metrics.sock")
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"sandboxd_build_info" in read(path)
    assert not path.exists()
