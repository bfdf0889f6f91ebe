"""The PORT of falcosidekick's checks behind HTTP or HTTPS, with its webhook output: `python -m` this module.

A process of its own, so that it can be killed. Used by the tests of the sink and by `bench.soak`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.falcosidekick_port import Configuration, Panicked, Payload, Rejected, accept

START_SECONDS = 60.0
CHECKOUT = Path(__file__).resolve().parents[1]
INVALID = "Please send a valid request body\n"
_TEST_EVENT = {
    "output": "This is a test from falcosidekick",
    "source": "debug",
    "priority": "Debug",
    "hostname": "falcosidekick",
    "rule": "Test rule",
    "output_fields": {"proc.name": "falcosidekick", "user.name": "falcosidekick"},
    "tags": ["test", "example"],
}


class Port:
    """`webhook`: where each accepted event is sent on, once, in no order, and never again if that fails.

    `ledger`: a file that gets a line for each accepted event before it is answered, so it outlives a kill; not ported.
    """

    def __init__(self, configuration: Configuration, webhook: str, ledger: str) -> None:
        self._configuration = configuration
        self._webhook = webhook
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._ledger = os.open(ledger, flags, 0o600) if ledger else None
        self._session: aiohttp.ClientSession | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/ping", self._ping)
        application.router.add_route("*", "/healthz", self._health)
        application.router.add_route("*", "/test", self._test)
        application.router.add_route("*", "/{path:.*}", self._main)
        application.on_cleanup.append(self._end)
        return application

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="pong\n")

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(text='{"status": "ok"}', content_type="application/json")

    async def _test(self, request: web.Request) -> web.Response:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return self._taken(request, json.dumps({**_TEST_EVENT, "time": now}).encode())

    async def _main(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            return web.Response(status=400, text="Please send with post http method\n")
        return self._taken(request, await request.read())

    def _taken(self, request: web.Request, body: bytes) -> web.Response:
        try:
            payload = accept(body, self._configuration)
        except Rejected:
            return web.Response(status=400, text=INVALID)
        except Panicked:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if self._ledger is not None:
            os.write(self._ledger, _entry(payload))
        if self._webhook:
            task = asyncio.create_task(self._forward(payload))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return web.Response()

    async def _forward(self, payload: Payload) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32))
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "Falcosidekick"}
        with contextlib.suppress(aiohttp.ClientError):
            async with self._session.post(self._webhook, data=payload.marshalled(), headers=headers):
                pass

    async def _end(self, _: web.Application) -> None:
        if self._session is not None:
            await self._session.close()


def _entry(payload: Payload) -> bytes:
    fields = payload.output_fields
    names = ("audit.boot", "audit.seq", "correlation.id")
    return json.dumps([payload.rule, *(fields.get(name, "") for name in names)]).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a ledger. `execution` is empty where the event is of none."""

    rule: str
    boot: str
    seq: int
    execution: str


def entries(ledger: Path) -> list[Entry]:
    """In the order in which they were accepted; none where nothing was. A line torn by a kill was not answered."""
    lines = ledger.read_text().split("\n")[:-1] if ledger.exists() else []
    found = []
    for rule, boot, seq, execution in map(json.loads, lines):
        found.append(Entry(rule, boot, int(seq), execution))
    return found


@dataclass(frozen=True, slots=True)
class RunningPort:
    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def falcosidekick_port(*arguments: str, port: int = 0, scheme: str = "http") -> Iterator[RunningPort]:
    """`port` 0 takes a free one. `arguments` are those of `main`."""
    port = port or free_port()
    command = [sys.executable, "-m", "tests.falcosidekick_server", "--port", str(port), *arguments]
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        _wait(process, port)
        yield RunningPort(f"{scheme}://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the port ended with {process.returncode}: {process.communicate()[0].decode()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.02)
    raise AssertionError(f"the port did not listen within {START_SECONDS} s")


def _pairs(items: Sequence[str]) -> dict[str, str]:
    return dict(item.split("=", 1) for item in items)


def _server_context(certificate: str, key: str, client_ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def _serve(options: argparse.Namespace) -> None:
    configuration = Configuration(
        _pairs(options.custom_field), _pairs(options.templated_field), tuple(options.custom_tag)
    )
    runner = web.AppRunner(
        Port(configuration, options.webhook, options.ledger).application(), access_log=None, auto_decompress=False
    )
    await runner.setup()
    context = _server_context(options.certificate, options.key, options.client_ca) if options.certificate else None
    await web.TCPSite(runner, "127.0.0.1", options.port, ssl_context=context).start()
    while os.getppid() == options.parent:  # not to outlive the test that was killed
        await asyncio.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--webhook", default="")
    parser.add_argument("--ledger", default="")
    parser.add_argument("--custom-field", action="append", default=[], metavar="NAME=TEXT")
    parser.add_argument("--templated-field", action="append", default=[], metavar="NAME=TEMPLATE")
    parser.add_argument("--custom-tag", action="append", default=[])
    for name in ("certificate", "key", "client-ca"):
        parser.add_argument(f"--{name}", default="")
    parser.set_defaults(parent=os.getppid())
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
