"""Reads the files out of an OPA bundle tarball, in memory: nothing is ever written, and no name in it becomes a path.

Takes plain files and directories alone; whatever else an archive can hold is refused, as is one that unpacks to more
than MAX_BYTES. Not the library's reader: that one goes round in circles on a negative size, and leaves out in silence
whatever stands behind a header that it cannot read. Called by `rego_bundle`.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from sandboxd.errors import PolicyInvalid

MAX_BYTES = 32 * 1024 * 1024
MAX_ENTRIES = 4096
MAX_NAME_CHARS = 512
_BLOCK = 512
_FILES, _DIRECTORY = (b"0", b"\0"), b"5"
_PAX, _PAX_FOR_ALL, _GNU_LONG_NAME = b"x", b"g", b"L"
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
# Attributes of an entry that do not change what it holds or is called (POSIX.1-2017, pax, "Extended Header").
_HARMLESS_PAX = frozenset({"atime", "comment", "ctime", "gid", "gname", "mtime", "uid", "uname"})


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    kind: bytes
    content: bytes


def unpack(archive: str, packed: bytes) -> tuple[tuple[str, bytes], ...]:
    """Name and content of each file, in order; names are relative and clean, and none is there twice.

    PolicyInvalid for whatever is not such an archive; `archive` is its name for the message.
    """
    content = _gunzip(archive, packed)
    files: dict[str, bytes] = {}
    for entry in _entries(archive, content):
        name = _clean(archive, entry.name)
        if entry.kind == _DIRECTORY:
            continue
        if entry.kind not in _FILES:
            kind = _KINDS.get(entry.kind, f"of type {entry.kind!r}")
            raise PolicyInvalid(f"{archive}: {name!r} is {kind}; a bundle holds plain files")
        if not name or entry.name.endswith(b"/"):
            raise PolicyInvalid(f"{archive}: a file has no name of its own, but {entry.name!r}; build the bundle anew")
        if name in files:
            raise PolicyInvalid(f"{archive}: {name!r} is there twice; build the bundle anew")
        files[name] = entry.content
    return tuple(files.items())


def _gunzip(archive: str, packed: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = stream.decompress(packed, MAX_BYTES + 1)
    except zlib.error as error:
        raise PolicyInvalid(f"{archive}: not a gzip file: {error}; build it with `opa build`") from error
    if len(content) > MAX_BYTES:
        raise PolicyInvalid(f"{archive}: unpacks to over {MAX_BYTES} bytes; leave out what is no policy")
    if not stream.eof:
        raise PolicyInvalid(f"{archive}: ends too early; copy the bundle again")
    if stream.unused_data:
        raise PolicyInvalid(f"{archive}: has {len(stream.unused_data)} bytes behind its end; build the bundle anew")
    return content


def _entries(archive: str, content: bytes) -> Iterator[_Entry]:
    """Each file and directory, under the name that the headers before it gave it."""
    offset, long_name = 0, b""
    for _ in range(MAX_ENTRIES):
        header = content[offset : offset + _BLOCK]
        if not header.strip(b"\0"):
            if content[offset:].strip(b"\0"):
                raise PolicyInvalid(f"{archive}: something stands behind its end; build the bundle anew")
            return
        entry = _entry(archive, header, content, offset + _BLOCK)
        offset += _BLOCK + -(-len(entry.content) // _BLOCK) * _BLOCK
        if entry.kind in (_PAX, _PAX_FOR_ALL):
            long_name = _pax_path(archive, entry) or long_name
        elif entry.kind == _GNU_LONG_NAME:
            long_name = entry.content.rstrip(b"\0")
        else:
            yield _Entry(long_name or entry.name, entry.kind, entry.content)
            long_name = b""
    raise PolicyInvalid(f"{archive}: holds over {MAX_ENTRIES} entries; leave out what is no policy")


def _entry(archive: str, header: bytes, content: bytes, begin: int) -> _Entry:
    """Of POSIX ustar: name 0-99, size 124-135, checksum 148-155, type 156, prefix 345-499."""
    size, checksum = _OCTAL.fullmatch(header[124:136]), _OCTAL.fullmatch(header[148:156])
    summed = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if len(header) != _BLOCK or size is None or checksum is None or int(checksum[1], 8) != summed:
        raise PolicyInvalid(f"{archive}: no tar header at byte {begin - _BLOCK}; build the bundle anew")
    end = begin + int(size[1], 8)
    if end > len(content):
        raise PolicyInvalid(f"{archive}: an entry at byte {begin - _BLOCK} is cut off; copy the bundle again")
    name = header[:100].split(b"\0")[0]
    # Other formats keep other things where ustar has its prefix.
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _Entry(prefix + b"/" + name if prefix else name, header[156:157], content[begin:end])


def _pax_path(archive: str, entry: _Entry) -> bytes:
    """The `path` of a pax header, empty if it has none; refused if it says anything else that counts."""
    path, rest = b"", entry.content
    while rest:
        length, space, _ = rest.partition(b" ")
        if not (space and length.isdigit() and len(length) < 8 and len(length) < int(length) <= len(rest)):
            raise PolicyInvalid(f"{archive}: an extended header is damaged; build the bundle anew")
        record, rest = rest[len(length) + 1 : int(length)], rest[int(length) :]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        if key == b"path" and entry.kind == _PAX:
            path = value
        elif key.decode("utf-8", "replace") not in _HARMLESS_PAX:
            raise PolicyInvalid(f"{archive}: an extended header sets {key!r}; build the bundle with `opa build`")
    return path


def _clean(archive: str, raw: bytes) -> str:
    """`opa build` begins each name with a slash, tar with `./`: both mean the root of the bundle."""
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{archive}: the name {raw!r} is not UTF-8; rename the file") from error
    relative = name.removeprefix("./") if name.startswith("./") else name.removeprefix("/")
    parts = relative.removesuffix("/").split("/") if relative else []
    bad = any(part in ("", ".", "..") for part in parts) or not name.isprintable() or "\\" in name
    if bad or len(name) > MAX_NAME_CHARS:
        raise PolicyInvalid(f"{archive}: the name {name!r} is not a path below the bundle's root; build it anew")
    return "/".join(parts)
