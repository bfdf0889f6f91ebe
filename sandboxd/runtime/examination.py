"""Reads what the spawner's child finds in a sandbox, as `spawner.examine` writes it: known names, bounded pieces.

Whatever is not that ends it: the child handles data of a tenant. Called by `process`.
"""

import asyncio
import os
from collections.abc import AsyncGenerator

from sandboxd.errors import RuntimeFailed

NAMES = frozenset({"processes.json", "mounts.txt", "workspace.json", "workspace.tar"})
MAX_PIECE_BYTES = 64 * 1024
SECONDS = 150.0  # the child gives itself less
_BROKEN = "what was found in the sandbox cannot be read"


async def pieces(pipe: int) -> AsyncGenerator[tuple[str, bytes], None]:
    """File by file. Takes the descriptor over; leaving early ends the child. `RuntimeFailed` if it makes no sense."""
    reader = asyncio.StreamReader(limit=MAX_PIECE_BYTES)
    file = os.fdopen(pipe, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    try:
        async with asyncio.timeout(SECONDS):
            while line := await reader.readline():
                name, length = _head(line)
                yield name, await reader.readexactly(length)
    except (ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
        raise RuntimeFailed(_BROKEN, reason="examine_failed") from error
    finally:
        transport.close()


def _head(line: bytes) -> tuple[str, int]:
    name, _, number = line.decode("ascii").removesuffix("\n").partition(" ")
    if name not in NAMES or not number.isdecimal() or len(number) > 5 or not 0 < int(number) <= MAX_PIECE_BYTES:
        raise ValueError("no piece of a file begins so")
    return name, int(number)
