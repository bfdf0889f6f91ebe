"""`sandboxctl audit verify`: is the journal as it was written? Of a directory, or of a node by its own word."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sandboxd.audit.checkpoint import LAST
from sandboxd.audit.key import key_id, parse_public
from sandboxd.audit.segment import segments
from sandboxd.audit.verify import verify
from sandboxd.cli import tables
from sandboxd.cli.mistake import Mistake
from sandboxd.cli.run import say
from sandboxd.client.sync import Client

GOOD, BAD = 0, 1
_KEY_BYTES = 4096
_BAD = ("segment", "line", "seq", "fault", "reason")


def of_directory(path: Path, key_file: Path | None, *, as_json: bool) -> int:
    """Reads all of it here, and needs no node. The exit code; Mistake if it cannot be told."""
    key = None if key_file is None else _key(key_file)
    try:
        if not segments(path) and not (path / LAST).exists():
            raise Mistake(f"there is no journal in {str(path)!r}; name the directory of segments: STATE_DIR/journal")
        result = verify(path, key)
    except OSError as error:
        raise Mistake(_unreadable(error, path)) from error
    _show({"ok": result.ok, **dataclasses.asdict(result)}, result.sealed_time, as_json=as_json)
    if key is None:
        say("signatures were NOT checked: whoever can write there can have written all of it; give --public-key")
    return GOOD if result.ok else BAD


def of_node(client: Client, key_file: Path | None, *, as_json: bool) -> int:
    """The node reads its own journal. The exit code; with a key file it is bad if the node signs with another."""
    key = None if key_file is None else _key(key_file)
    if key is not None:
        named = client.audit_key().key_id
        if named != key_id(key):
            say(f"wrong_key: the node signs with key {named[:16]!r}, and {str(key_file)!r} is {key_id(key)[:16]!r}")
            return BAD
    result = client.verify_audit()
    sealed_at = "" if result.sealed_at is None else result.sealed_at.isoformat()
    _show(dataclasses.asdict(result), sealed_at, as_json=as_json)
    return GOOD if result.ok else BAD


def _show(result: Mapping[str, object], sealed_at: str, *, as_json: bool) -> None:
    bad = result["first_bad"]
    if as_json:
        wanted = ("ok", "records", "first_seq", "last_seq", "checkpoints", "sealed_seq", "key_id", "torn_bytes")
        document = {name: result[name] for name in wanted} | {"sealed_at": sealed_at, "first_bad": bad}
        print(json.dumps(document, indent=2))  # noqa: T201
        return
    rows = [
        ("result", "good" if result["ok"] else "BAD"),
        ("good records", str(result["records"])),
        ("from, to", f"{result['first_seq']}, {result['last_seq']}"),
        ("checkpoints", str(result["checkpoints"])),
        ("signed up to", f"record {result['sealed_seq']}, at {sealed_at}" if sealed_at else "-"),
        ("key", str(result["key_id"]) or "-"),
    ]
    if isinstance(bad, dict):
        rows += [(f"first bad: {name}", str(bad[name])) for name in _BAD]
    tables.show("", ("", ""), rows)


def _key(path: Path) -> Ed25519PublicKey:
    try:
        with path.open("rb") as file:
            return parse_public(file.read(_KEY_BYTES))
    except OSError as error:
        raise Mistake(f"cannot read the key {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise Mistake(f"cannot use the key {str(path)!r}: {error}; print the node's: sandboxctl audit key") from error


def _unreadable(error: OSError, path: Path) -> str:
    remedy = "name the directory of segments: STATE_DIR/journal"
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        remedy = "read it as root or as the daemon's user, or copy it"
    return f"cannot read the journal in {str(path)!r}: {error.strerror or error}; {remedy}"
