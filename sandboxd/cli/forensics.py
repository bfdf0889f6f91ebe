"""Writes down what can be known of a living sandbox, into a directory made for it that nobody else may enter.

Every file's name is one of a closed set: nothing that a tenant chose becomes a path. What is in them came from there.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from sandboxd.cli.mistake import Mistake
from sandboxd.client.audit import AuditFilter
from sandboxd.client.response import Target
from sandboxd.client.sync import Client

EVENTS = "events.jsonl"
EVIDENCE = (
    "execution.json",
    "limits.json",
    "enforcement.json",
    "processes.json",
    "mounts.txt",
    "workspace.tar",
    "workspace.json",
)
MOST_EVENTS = 100_000


def collect(client: Client, target: Target, directory: Path, workspace_bytes: int) -> None:
    """Mistake if the directory is there already, or the node names a file that it should not know."""
    try:
        directory.mkdir(mode=0o700)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Mistake(f"cannot make {str(directory)!r}: {error.strerror}; name one that is not there") from error
    with ExitStack() as open_files:
        open_files.callback(os.close, fd)
        files: dict[str, BinaryIO] = {}
        for piece in client.examine(target, workspace_bytes):
            if piece.name not in EVIDENCE:
                raise Mistake("the node sent a file that this version does not know; use the version of the node")
            if piece.name not in files:
                files[piece.name] = open_files.enter_context(_created(fd, piece.name))
            files[piece.name].write(piece.data)
        wanted = AuditFilter(execution_id=_execution_id(client, target))
        events = open_files.enter_context(_created(fd, EVENTS))
        page = client.query_audit(wanted, limit=MOST_EVENTS, oldest_first=True)
        events.writelines(record.line.encode().rstrip(b"\n") + b"\n" for record in page.records)
    for name in (*EVIDENCE, EVENTS):
        path = directory / name
        if path.exists():
            print(f"{path.stat().st_size:>12} {path}")  # noqa: T201


def _created(directory: int, name: str) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb")


def _execution_id(client: Client, target: Target) -> str:
    if target.execution_id:
        return target.execution_id
    return next(one.execution_id for one in client.executions() if one.sandbox_id == target.sandbox_id)
