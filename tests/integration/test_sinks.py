"""Sinks of a real daemon: what is configured receives, what fails is on record, and a reload lets go of files."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.skips import need_root

SECONDS = 60.0


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rules(path: Path) -> list[str]:
    return [json.loads(line)["rule"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def exported() -> Iterator[Path]:
    """A directory that whoever the daemon is can reach."""
    directory = Path(f"/tmp/sandboxd-exported-{os.getpid()}")
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def given_to_daemon(daemon: RunningDaemon, directory: Path) -> None:
    os.chown(directory, daemon.state_dir.joinpath("journal").stat().st_uid, -1)


@pytest.mark.parametrize("mode", [Mode.ROOT, Mode.ROOTLESS])
def test_a_file_is_written_once_it_may_be_and_let_go_of_on_reload(mode: Mode, exported: Path) -> None:
    need_root()
    path, old = exported / "events.jsonl", exported / "old.jsonl"
    settings = f"sinks: [{{type: file, path: {path}}}]\n"
    with start_daemon(mode, settings) as daemon:
        until(lambda: any(record["rule"] == "sink.failed" for record in daemon.journal()))
        assert not path.exists()
        given_to_daemon(daemon, exported)
        until(lambda: "sink.recovered" in rules(path))
        assert rules(path)[: len(daemon.journal())] == [record["rule"] for record in daemon.journal()]
        path.rename(old)
        daemon.reload()
        until(lambda: "config.reloaded" in rules(path))
        assert "config.reloaded" not in rules(old)
        status = {sink.name: sink for sink in daemon.client().audit_sinks()}["file"]
        assert (status.state, status.failures) == ("ok", 0)


class Late(BaseHTTPRequestHandler):
    """As falcosidekick, but not at once."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = b"pong" if len(self.asked) > 1 else b"not yet"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_required_sink_that_comes_up_later_than_the_node_lets_it_start_then() -> None:
    need_root()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Late)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with start_daemon(Mode.ROOT, f"sinks: [{{type: falcosidekick, url: '{url}', required: true}}]\n") as daemon:
            assert [record["rule"] for record in daemon.journal()].count("daemon.started") == 2
            assert "required sink 'falcosidekick' does not accept" in daemon.log.read_text()
            until(lambda: daemon.client().audit_sinks()[0].lag_records == 0)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert Late.asked == ["/ping", "/ping"]
