"""What is frozen cannot thaw itself, and nobody in a sandbox reaches the place where responses are asked for."""

import contextlib
import http.client
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sandboxd.client import Accepted, Chunk, Client, EndReason, Measure, Result, SandboxdError, Target
from tests import proc
from tests.daemon import RunningDaemon, start_daemon
from tests.escape.attempt import Attempt, Network, check_control, unconfined
from tests.escape.confined import Confined
from tests.modes import EACH, need_mode
from tests.opa import free_port

UNREACHED = ("ENETUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL")
TOKEN = "token-of-a-test-that-is-long-enough"
# A timer of its own sends each of two processes SIGCONT fifty times a second, and so does its parent's death.
WAKER = """
import ctypes, os, signal, struct, time
libc = ctypes.CDLL(None)
def wake():
    event = ctypes.create_string_buffer(struct.pack("=Qii", 0, signal.SIGCONT, 0), 128)
    timer = ctypes.c_void_p()
    if libc.timer_create(1, event, ctypes.byref(timer)):
        return "timer_create"
    spec = struct.pack("=qqqq", 0, 20_000_000, 0, 20_000_000)
    return "timer_settime" if libc.timer_settime(timer, 0, spec, None) else "armed"
os.fork()
print(wake(), flush=True)
while True:
    with open("/workspace/alive", "a") as file:
        file.write(".")
    time.sleep(0.01)
"""


@pytest.fixture(params=EACH, ids=str)
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[RunningDaemon, int]]:
    need_mode(request.param)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="sandboxd-test-") as directory:  # the daemon is another user
        Path(directory).chmod(0o755)
        token = Path(directory, "token")
        token.write_text(TOKEN)
        token.chmod(0o644)
        section = f"{{listen: '127.0.0.1:{port}', token_file: {token}, rules: {{Miner: kill}}}}"
        with start_daemon(request.param, f"response: {section}\n") as daemon:
            yield daemon, port


def post(port: int, body: Mapping[str, object]) -> tuple[int, dict[str, str]]:
    host = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        host.request("POST", "/v1/response", json.dumps(body), {"Authorization": f"Bearer {TOKEN}"})
        answer = host.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        host.close()


def test_n13_the_place_for_responses_is_not_reached(listening: tuple[RunningDaemon, int], outside: Path) -> None:
    daemon, port = listening
    with daemon.client() as client:
        for profile in ("default", "build"):  # without and with a loopback of its own
            seen = Confined(daemon, client).probe("sockets", ("connect_tcp", str(port), "127.0.0.1"), profile=profile)
            assert seen.answer in UNREACHED, seen
        control = unconfined(outside, "sockets", ("connect_tcp", str(port), "127.0.0.1"), Network.HOST)
        check_control(Attempt("N13", "connect_tcp", UNREACHED), control)
        with contextlib.closing(client.execute(["/bin/sh", "-c", "echo up; exec sleep 1000"])) as events:
            accepted = next(events)
            assert isinstance(accepted, Accepted) and isinstance(next(events), Chunk)
            event = {"rule": "Miner", "output_fields": {"container.id": accepted.sandbox_id}}
            told = post(port, event)
            assert told == (200, {"result": "taken"}), daemon.log.read_text()[-3000:]
            *_, result = events
            assert isinstance(result, Result) and result.end_reason is EndReason.KILLED


def test_frozen_program_that_had_itself_continued_does_not_go_on(daemon: RunningDaemon, client: Client) -> None:
    """Where a cgroup is frozen no signal moves it; where programs are stopped, those that go on are ended."""
    with contextlib.closing(client.execute(["/usr/bin/python3", "-c", WAKER], profile="python")) as events:
        accepted = next(events)
        assert isinstance(accepted, Accepted)
        seen = b""
        while seen.count(b"armed") < 2:
            chunk = next(events)
            assert isinstance(chunk, Chunk), "the control: both have their timer"
            seen += chunk.data
        programs = [process.pid for process in proc.sandboxed_programs(daemon.process.pid)]
        client.respond(Measure.FREEZE, Target(execution_id=accepted.execution_id))
        proc.until(lambda: _still(programs), "it stands still, or is no more")
        with contextlib.suppress(SandboxdError):  # where it is no more
            client.respond(Measure.KILL, Target(execution_id=accepted.execution_id))
        *_, result = events
        assert isinstance(result, Result)
        assert result.end_reason in (EndReason.KILLED, EndReason.SIGNALED)


def _still(pids: list[int]) -> bool:
    """None of them is given a CPU while others have time for much."""
    before = _switches(pids)
    for _ in range(30):
        subprocess.run(["/bin/true"], check=True)
        os.sched_yield()
    return _switches(pids) == before


def _switches(pids: list[int]) -> list[tuple[str, str]]:
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            status = proc.status(pid)
            found.append((status["voluntary_ctxt_switches"], status["nonvoluntary_ctxt_switches"]))
    return found
