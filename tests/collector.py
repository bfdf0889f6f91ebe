"""Starts a real OpenTelemetry collector for tests: it takes logs and traces on loopback and hands them to `export_to`.

Somebody else's program in another language, so that what it hands on it has understood. See .ci/get-collector.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.opa import free_port
from tests.skips import Lacks, because

START_SECONDS = 60.0


def need_collector() -> str:
    """The program's path; skipped where it is missing, which fails in CI."""
    path = os.environ.get("SANDBOXD_TEST_COLLECTOR") or shutil.which("rotel-agent")
    if path is None:
        get = "get it with .ci/get-collector and name it in SANDBOXD_TEST_COLLECTOR"
        pytest.skip(because(Lacks.PROGRAM, f"'rotel-agent'; {get}"))
    return path


@dataclass(frozen=True, slots=True)
class Collector:
    """`http` and `grpc` are the bases that OTLP is sent to."""

    http: str
    grpc: str
    process: asyncio.subprocess.Process


@contextlib.asynccontextmanager
async def collector(export_to: str, *, http_port: int = 0) -> AsyncIterator[Collector]:
    """`export_to` is the base of an OTLP receiver over HTTP. `http_port` 0 takes a free one."""
    http, grpc = f"127.0.0.1:{http_port or free_port()}", f"127.0.0.1:{free_port()}"
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-collector-", dir="/tmp"))
    process = await asyncio.create_subprocess_exec(
        *(need_collector(), "start", "--otlp-http-endpoint", http, "--otlp-grpc-endpoint", grpc),
        *("--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", export_to),
        *("--otlp-exporter-retry-initial-backoff", "100ms", "--batch-timeout", "20ms"),
        *("--log-file", str(directory / "log"), "--pid-file", str(directory / "pid")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"HOME": "/nonexistent"},
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            await _answers(http, process)
        yield Collector(f"http://{http}", f"http://{grpc}", process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        shutil.rmtree(directory)


async def _answers(address: str, process: asyncio.subprocess.Process) -> None:
    host, _, port = address.partition(":")
    while process.returncode is None:
        with contextlib.suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the collector ended with {process.returncode}")
