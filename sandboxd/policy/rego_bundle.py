"""Reads a policy bundle from disk, once: what was read is what is compiled, hashed and named on record.

Never follows a symbolic link, never reads tests into the running policy. Called by `policy.rego`, and by the commands
that look at a policy.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sandboxd.errors import PolicyInvalid
from sandboxd.policy import bundle_data, bundle_manifest
from sandboxd.policy.bundle_archive import unpack
from sandboxd.policy.bundle_manifest import MANIFEST, Manifest
from sandboxd.policy.rego_builtins import package

MAX_BYTES = 8 * 1024 * 1024
ARCHIVE = ".tar.gz"
DATA = "data.json"
_DATA_FILES = (DATA, "data.yaml", "data.yml")
_TEST = "_test.rego"
_SIGNATURES = ".signatures.json"
# What OPA knows in a bundle and the embedded engine does not: to pass over it would run half of a policy.
_FOREIGN = frozenset({"policy.wasm", "plan.json", "plan.pb", "patch.json", ".manifest.pb"})


@dataclass(frozen=True, slots=True)
class Release:
    """A signed bundle: `version` as its manifest counts, `digest` of everything in it."""

    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """Modules as (path, source), the base document as JSON text, and the revision that goes on record.

    `tests` are there if they were asked for, `release` if a key was given. `digests` has SHA-256 by path.
    """

    modules: tuple[tuple[str, str], ...]
    data_json: str
    revision: str
    tests: tuple[tuple[str, str], ...] = ()
    release: Release | None = None
    digests: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Source:
    """One of the paths, read: relative path and content of each file that counts."""

    files: tuple[tuple[str, bytes], ...]
    manifest: Manifest


def read_bundle(paths: Sequence[Path], key: Path | None = None, *, tests: bool = False) -> Bundle:
    """Every `*.rego` and data file below these directories, files or bundle tarballs (`*.tar.gz`).

    The revision is the `.manifest`'s, as in an OPA bundle, else SHA-256 over the sorted (path, bytes). With a `key`,
    the one path is a bundle that it signed. PolicyInvalid for a symbolic link, an unreadable file, two documents on one
    place, nothing to read, or what is wrong with a tarball.
    """
    if key is not None and not (len(paths) == 1 and paths[0].name.endswith(ARCHIVE)):
        raise PolicyInvalid(
            f"policy.verification_key wants one signed bundle in policy.paths, got {[str(path) for path in paths]}; "
            f"build one *{ARCHIVE}"
        )
    sources = [_source(path, key) for path in paths]
    files = sorted(file for source in sources for file in source.files)
    for (name, _), (other, _) in pairwise(files):
        if name == other and name.endswith(".rego"):
            raise PolicyInvalid(
                f"{name!r} is in two of policy.paths, and nobody could tell their rules apart; rename one"
            )
    running = [(name, content) for name, content in files if not name.endswith(_TEST)]
    modules = [(name, _text(name, content)) for name, content in running if name.endswith(".rego")]
    if not modules:
        raise PolicyInvalid(f"no policy in {[str(path) for path in paths]}; put a .rego file there")
    digest = _digest(running)
    return Bundle(
        modules=tuple(modules),
        data_json=bundle_data.as_json(_data(running)),
        revision=_revision(sources) or digest,
        tests=tuple((name, _text(name, content)) for name, content in files if tests and name.endswith(_TEST)),
        release=Release(sources[0].manifest.version, digest) if key is not None else None,
        digests=tuple((name, hashlib.sha256(content).hexdigest()) for name, content in running),
    )


def _source(path: Path, key: Path | None) -> _Source:
    found = dict(_archive(path, key) if path.name.endswith(ARCHIVE) else _files(path))
    manifest = Manifest()
    if MANIFEST in found:
        manifest = bundle_manifest.parse(f"{path.name}: {MANIFEST}", found[MANIFEST])
        bundle_manifest.check_roots(str(path), manifest, _defined(found))
    if key is not None and manifest.version == 0:
        raise PolicyInvalid(
            f"{path}: its manifest does not say which release it is; "
            'put {"sandboxd": {"version": N}} into its metadata and count up'
        )
    return _Source(tuple(found.items()), manifest)


def _archive(path: Path, key: Path | None) -> Mapping[str, bytes]:
    """What the tarball holds and counts, once all of it is verified."""
    try:
        found = dict(unpack(str(path), _read(path)))
    except OSError as error:
        raise PolicyInvalid(f"cannot read policy {str(path)!r}: {error.strerror}") from error
    for name in found:
        base = name.rpartition("/")[2]
        if base in _FOREIGN:
            raise PolicyInvalid(f"{path}: {name!r} is nothing that the embedded engine runs; build with --target rego")
        if base in (MANIFEST, _SIGNATURES) and name != base:
            raise PolicyInvalid(f"{path}: {name!r} is not at the bundle's root, where the only one belongs")
    if key is not None:
        from sandboxd.policy import bundle_signature  # its libraries cost start-up time, and few nodes have a key

        bundle_signature.verify(str(path), found, bundle_signature.read_key(key))
    return {name: content for name, content in found.items() if _counts(name)}


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
                    path = Path(directory) / name
                    if _counts(name):
                        yield path.relative_to(root).as_posix(), _read(path)
        else:
            raise PolicyInvalid(f"{root} is neither a directory nor a regular file")
    except OSError as error:
        raise PolicyInvalid(f"cannot read policy {error.filename or str(root)!r}: {error.strerror}") from error


def _counts(name: str) -> bool:
    return name.rpartition("/")[2] in (*_DATA_FILES, MANIFEST) or name.endswith(".rego")


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
    """Of a module. The engine takes a NUL for its end, and what stands behind would be no part of the policy."""
    if (nul := content.find(b"\0")) >= 0:
        raise PolicyInvalid(f"{name}:{_line(content, nul)}: a NUL byte, which is no text; write the file anew")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = _line(content, error.start)
        raise PolicyInvalid(f"{name}:{line}: byte {content[error.start]:#04x} is not UTF-8") from error


def _line(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


def _revision(sources: Sequence[_Source]) -> str:
    declared = sorted({source.manifest.revision for source in sources} - {""})
    if len(declared) > 1:
        raise PolicyInvalid(
            f"revisions {declared} are not the one string of one bundle; name each in policy.paths once"
        )
    return declared[0] if declared else ""


def _defined(files: Mapping[str, bytes]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Which part of `data` each file defines."""
    for name, content in files.items():
        folder, _, base = name.rpartition("/")
        if name.endswith(".rego"):
            yield name, package(_text(name, content))
        elif base in _DATA_FILES:
            for place in _values(_object(name, content), tuple(folder.split("/")) if folder else ()):
                yield name, place


def _values(value: object, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Where there is more than objects. The empty `data.json` that `opa build` puts at the root defines nothing."""
    if isinstance(value, dict) and (value or not place):
        for key, item in value.items():
            yield from _values(item, (*place, key))
    else:
        yield place


def _object(name: str, content: bytes) -> dict[str, object]:
    value = bundle_data.parse(name, content)
    if not isinstance(value, dict):
        raise PolicyInvalid(f"{name}: not an object")
    return value


def _data(files: Iterable[tuple[str, bytes]]) -> dict[str, object]:
    data: dict[str, object] = {}
    for name, content in files:
        if name.rpartition("/")[2] in _DATA_FILES:
            _place(data, name, _object(name, content))
    return data


def _place(data: dict[str, object], name: str, value: dict[str, object]) -> None:
    """`lib/data.json` is `data.lib`, and documents are merged, as in an OPA bundle."""
    for folder in reversed(name.split("/")[:-1]):
        value = {folder: value}
    _merge(data, name, value, "data")


def _merge(data: dict[str, object], name: str, value: dict[str, object], place: str) -> None:
    for key, item in value.items():
        there = data.setdefault(key, item)
        if there is item:
            continue
        if not (isinstance(there, dict) and isinstance(item, dict)):
            raise PolicyInvalid(f"{name}: {place}.{key} is already defined; define each value once")
        _merge(there, name, item, f"{place}.{key}")


def _digest(files: Sequence[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{len(name.encode())}:{name}{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
