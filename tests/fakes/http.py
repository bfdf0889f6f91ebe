"""An HTTP server that does to its client whatever a test says, byte by byte, on a real socket.

It is no OPA: that one is real, see `tests.opa`. For what no honest server would send.
"""

import ssl
from asyncio import IncompleteReadError, StreamReader, StreamWriter, start_server, start_unix_server
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. Header names are in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0


Script = Callable[[StreamWriter], Awaitable[None]]


def response(body: str | bytes, status: str = "200 OK", *headers: str, content: str = "application/json") -> bytes:
    """A whole answer. Without a length among `headers` it has the right one."""
    raw = body if isinstance(body, bytes) else body.encode()
    length = () if any(header.startswith("Content-Length") for header in headers) else (f"Content-Length: {len(raw)}",)
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Type: {content}", *length, *headers))
    return f"{head}\r\n\r\n".encode() + raw


def says(answer: bytes) -> Script:
    """Sends it and keeps the connection."""

    async def script(writer: StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return script


def says_and_closes(answer: bytes) -> Script:
    async def script(writer: StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    return script


@asynccontextmanager
async def scripted(
    script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", path: Path | None = None
) -> AsyncIterator[ScriptedServer]:
    """Runs `script` for each request that was read in full. `host` is what its url says; it listens on 127.0.0.1."""
    made = ScriptedServer()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        made.connections += 1
        with suppress(IncompleteReadError, OSError):
            while not writer.is_closing():
                made.asked.append(await _request(reader))
                await script(writer)
        writer.close()

    if path is not None:
        server = await start_unix_server(serve, path)
        made.url = f"unix://{path}"
    else:
        server = await start_server(serve, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        made.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield made
    finally:
        server.close()


async def _request(reader: StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in lines)}
    return Asked(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
