"""A pack of documents as bytes on the disk: no document comes out that is not what its digest says."""

import hashlib
import re
import tempfile
from pathlib import Path

from bench.soak.target import Broken, Target
from sandboxd.audit.store import find

MOST = 8
WRITES = tuple(f"store.Store.{name}" for name in ("__init__", "close", "put", "_goes_on", "_begin"))


def target() -> Target:
    kept = tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm")
    directory = Path(kept.name, "documents")
    directory.mkdir()
    whole = b"".join(_entry(document) for document in (b'{"a": "some text"}', b"", b"\n"))
    older = directory / "0.pack"
    older.write_bytes(_entry(b"in an older pack"))

    def run(data: bytes) -> object:
        _ = kept  # lives as long as this function
        # The digests of such documents are mended, so that mutations reach what lies behind them.
        mended = re.sub(rb"[0-9a-f]{64} \d+\n(\w*)\n", lambda match: _entry(match[1]), data)
        (directory / "1.pack").write_bytes(mended)
        found = []
        for name in re.findall(rb"[0-9a-f]{64}", mended)[:MOST]:
            try:
                document = find(directory, name.decode())
            except (FileNotFoundError, ValueError):
                continue
            if hashlib.sha256(document).hexdigest().encode() != name:
                raise Broken(f"{document!r} for {name!r}")
            found.append(document.decode(errors="replace"))
        if find(directory, hashlib.sha256(b"in an older pack").hexdigest()) != b"in an older pack":
            raise Broken("a pack spoils another")
        return found or None

    torn = _entry(b"in an older pack")[:-8]
    seeds = (whole, _entry(b"text"), whole[:-4], whole + torn, b"0" * 64 + b" 9999999999\nx", b"")
    words = (b" 0\n", b"0" * 64, b"9" * 10)
    return Target("store", ("sandboxd.audit.store",), run, (), seeds, words, outside=WRITES)


def _entry(document: bytes) -> bytes:
    return b"%b %d\n%b\n" % (hashlib.sha256(document).hexdigest().encode(), len(document), document)
