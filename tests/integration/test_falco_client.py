"""Falco's own client library (PyPI `falco` 0.4.0) fetches our events, as if we were Falco."""

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from sandboxd import __version__
from sandboxd.settings.sinks.falco_grpc import FalcoGrpcSettings
from sandboxd.sink.falco_grpc import FalcoGrpcSink
from tests.daemon import Mode, start_daemon
from tests.falco_outputs import record
from tests.opa import free_port
from tests.skips import Lacks, because, need_root

SECONDS = 120.0

# Arguments: how to connect (JSON), and what to call. Prints what comes, as the library has it, a line each.
PROGRAM = """
import json, sys, falco
client = falco.Client(**json.loads(sys.argv[1]), output_format="json")
if sys.argv[2] == "version":
    print(client.version())
else:
    for event in getattr(client, sys.argv[2])():
        print(event, flush=True)
"""


def need_falco_client() -> str:
    """Its Python; skipped where it is missing, which fails in CI."""
    path = os.environ.get("SANDBOXD_TEST_FALCO_CLIENT")
    if path is None:
        hint = "Falco's client library; make it with .ci/build-falco-client and name it in SANDBOXD_TEST_FALCO_CLIENT"
        pytest.skip(because(Lacks.PROGRAM, hint))
    return path


class Calling:
    """The library, calling. Iterates over what comes."""

    def __init__(self, place: dict[str, str], call: str) -> None:
        arguments = [need_falco_client(), "-c", PROGRAM, json.dumps(place), call]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> "Calling":
        return self

    def __next__(self) -> dict[str, object]:
        line = self._lines.get(timeout=SECONDS)
        if not line:
            raise StopIteration
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


@contextlib.contextmanager
def calling(place: dict[str, str], call: str) -> Iterator[Calling]:
    made = Calling(place, call)
    try:
        yield made
    finally:
        made.end()


def fields(event: dict[str, object]) -> dict[str, str]:
    found = event["output_fields"]
    assert isinstance(found, dict)
    return found


def test_falcos_client_gets_each_event_of_the_daemon_once_and_in_order() -> None:
    need_root()
    need_falco_client()
    with start_daemon(Mode.ROOT, "sinks: [{type: falco_grpc, name: falco}]\n") as daemon:
        place = {"endpoint": f"unix://{daemon.socket.parent}/falco.sock"}
        with calling(place, "version") as said:
            assert next(said)["version"] == __version__
        with daemon.client() as client:
            client.run(["/bin/true"])
        events: list[dict[str, object]] = []
        while "execution.ended" not in [event["rule"] for event in events]:
            with calling(place, "get") as got:
                events += list(got)
        with calling(place, "sub") as subscribed, daemon.client() as client:
            result = client.run(["/bin/echo", "seen"])
            for event in subscribed:
                events.append(event)
                if event["rule"] == "execution.ended":
                    break
        assert fields(events[-1])["correlation.id"] == result.execution_id
        journal = daemon.journal()
    seqs = [int(fields(event)["audit.seq"]) for event in events]
    assert seqs == list(range(1, len(seqs) + 1))
    told = [(event["rule"], str(event["priority"])) for event in events]
    assert told == [(record["rule"], str(record["priority"]).lower()) for record in journal[: len(seqs)]]


async def test_falcos_client_gets_in_with_its_certificate(tmp_path: Path) -> None:
    need_falco_client()
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca")
    for name in ("server", "client"):
        leaf = ca.issue_cert("127.0.0.1")
        leaf.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.cert")
    port = free_port()
    files = {"certificate": "server.cert", "key": "server.key", "client_ca": "ca"}
    tls = {"address": f"127.0.0.1:{port}", **{key: str(tmp_path / name) for key, name in files.items()}}
    settings = FalcoGrpcSettings.model_validate({"type": "falco_grpc", "socket": str(tmp_path / "f"), "tls": tls})
    sink = FalcoGrpcSink(settings)
    await sink.send([record(1), record(2)])
    theirs = {"client_crt": "client.cert", "client_key": "client.key", "ca_root": "ca"}
    place = {"endpoint": f"127.0.0.1:{port}", **{key: str(tmp_path / name) for key, name in theirs.items()}}
    with calling(place, "get") as got:
        events = await asyncio.to_thread(list, got)
    await sink.close()
    assert [fields(event)["audit.seq"] for event in events] == ["1", "2"]
