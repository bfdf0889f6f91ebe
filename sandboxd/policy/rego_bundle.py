"""Reads a policy bundle from disk, once: what was read is what is compiled, hashed and named on record.

Never follows a symbolic link, never reads tests into the running policy. Called by `policy.rego`.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxd.errors import PolicyInvalid

MAX_BYTES = 8 * 1024 * 1024
MANIFEST = ".manifest"
DATA = "data.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Modules as (path, source), the base document as JSON text, and the revision that goes on record."""

    modules: tuple[tuple[str, str], ...]
    data_json: str
    revision: str


def read_bundle(paths: Sequence[Path]) -> Bundle:
    """Every `*.rego` (but `*_test.rego`) and `data.json` below these directories or files.

    The revision is the `.manifest`'s `revision`, as in an OPA bundle, else SHA-256 over the sorted (path, bytes).
    PolicyInvalid for a symbolic link, an unreadable file, two documents on one place, or nothing to read.
    """
    files = sorted(file for path in paths for file in _files(path))
    modules = [(name, _text(name, content)) for name, content in files if name.endswith(".rego")]
    if not modules:
        raise PolicyInvalid(f"no policy in {[str(path) for path in paths]}; put a .rego file there")
    data: dict[str, object] = {}
    revision = ""
    for name, content in files:
        base = name.rpartition("/")[2]
        if base == DATA:
            _place(data, name, _json_object(name, content))
        elif base == MANIFEST:
            declared = _json_object(name, content).get("revision", "")
            if not isinstance(declared, str) or (revision and declared != revision):
                raise PolicyInvalid(f"{name}: revision {declared!r} is not the one string of this bundle")
            revision = declared
    return Bundle(tuple(modules), json.dumps(data), revision or _digest(files))


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Relative path and content of each file of the bundle; the directory's own name is no part of the path."""
    try:
        mode = root.lstat().st_mode
        if stat.S_ISREG(mode):
            yield root.name, _read(root)
        elif stat.S_ISDIR(mode):
            for directory, folders, names in os.walk(root, onerror=_raise):
                for entry in (*folders, *names):
                    if (Path(directory) / entry).is_symlink():
                        raise PolicyInvalid(f"{Path(directory) / entry} is a symbolic link; put the file itself there")
                for name in names:
                    if name in (DATA, MANIFEST) or (name.endswith(".rego") and not name.endswith("_test.rego")):
                        path = Path(directory) / name
                        yield path.relative_to(root).as_posix(), _read(path)
        else:
            raise PolicyInvalid(f"{root} is neither a directory nor a regular file")
    except OSError as error:
        raise PolicyInvalid(f"cannot read policy {error.filename or str(root)!r}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PolicyInvalid(f"{path} is not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PolicyInvalid(f"{path} is over {MAX_BYTES} bytes")
    return content


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PolicyInvalid(f"{name}:{line}: byte {content[error.start]:#04x} is not UTF-8") from error


def _json_object(name: str, content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PolicyInvalid(f"{name}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise PolicyInvalid(f"{name}: not an object")
    return value


def _place(data: dict[str, object], name: str, value: dict[str, object]) -> None:
    """`lib/data.json` is `data.lib`, as in an OPA bundle."""
    for folder in name.split("/")[:-1]:
        inner = data.setdefault(folder, {})
        if not isinstance(inner, dict):
            raise PolicyInvalid(f"{name}: data.{folder} is already {type(inner).__name__}")
        data = inner
    if twice := data.keys() & value.keys():
        raise PolicyInvalid(f"{name}: {sorted(twice)} are already defined")
    data.update(value)


def _digest(files: Sequence[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{len(name.encode())}:{name}{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
