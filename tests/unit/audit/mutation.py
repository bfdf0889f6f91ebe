"""A journal's files in memory, and what who can write to its directory may do to them. Used by `test_verify`."""

import json
import random
import shutil
from pathlib import Path

from sandboxd.audit import checkpoint

Files = dict[str, bytes]
LAST = checkpoint.LAST


def contents(directory: Path) -> Files:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "lock"}


def names(files: Files) -> list[str]:
    return sorted(name for name in files if name != LAST)


def rows(files: Files, name: str) -> list[bytes]:
    return files[name].splitlines(keepends=True)


def every(files: Files) -> list[tuple[str, int, bytes]]:
    """Segment, index in it, and line of each record."""
    return [(name, index, line) for name in names(files) for index, line in enumerate(rows(files, name))]


def with_line(files: Files, seq: int, line: bytes) -> Files:
    name, index, _ = every(files)[seq - 1]
    changed = rows(files, name)
    changed[index] = line
    return {**files, name: b"".join(changed)}


def laid_out(directory: Path, files: Files) -> Path:
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def edited(line: bytes, **values: object) -> bytes:
    """With some of its fields changed, in canonical form."""
    record = json.loads(line)
    record["fields"].update(values)
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _flip(files: Files, chance: random.Random) -> Files:
    name = chance.choice(sorted(files))
    data = bytearray(files[name])
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return {**files, name: bytes(data)}


def _cut_out(files: Files, chance: random.Random) -> Files:
    name = chance.choice(sorted(files))
    data = files[name]
    begin = chance.randrange(len(data))
    return {**files, name: data[:begin] + data[begin + chance.randint(1, 900) :]}


def _put_in(files: Files, chance: random.Random) -> Files:
    name = chance.choice(sorted(files))
    data = files[name]
    at = chance.randrange(len(data))
    piece = chance.choice([chance.randbytes(chance.randint(1, 8)), b"\n", data[: chance.randint(1, len(data))]])
    return {**files, name: data[:at] + piece + data[at:]}


def _swap(files: Files, chance: random.Random) -> Files:
    lines = [line for _, _, line in every(files)]
    one, other = chance.sample(range(len(lines)), 2)
    return with_line(with_line(files, one + 1, lines[other]), other + 1, lines[one])


def _drop(files: Files, chance: random.Random) -> Files:
    seq = chance.randint(1, len(every(files)))
    return with_line(files, seq, b"")


def _double(files: Files, chance: random.Random) -> Files:
    seq, at = (chance.randint(1, len(every(files))) for _ in range(2))
    lines = every(files)
    return with_line(files, at, lines[at - 1][2] + lines[seq - 1][2])


def _truncate(files: Files, chance: random.Random) -> Files:
    name = chance.choice(sorted(files))
    return {**files, name: files[name][: chance.randrange(len(files[name]))]}


def _remove(files: Files, chance: random.Random) -> Files:
    gone = chance.choice(sorted(files))
    return {name: content for name, content in files.items() if name != gone}


def _rewrite(files: Files, chance: random.Random) -> Files:
    seq = chance.randint(1, len(every(files)))
    return with_line(files, seq, edited(every(files)[seq - 1][2], detail=str(chance.random())))


RANDOM = (_flip, _flip, _flip, _cut_out, _put_in, _swap, _drop, _double, _truncate, _remove, _rewrite)


def first_changed(before: Files, after: Files) -> int:
    """The number of the first record that is not where it was, counted through all segments."""
    was, now = ([line for _, _, line in every(files)] for files in (before, after))
    changed = (seq for seq, (one, other) in enumerate(zip(was, now, strict=False), 1) if one != other)
    return next(changed, min(len(was), len(now)) + 1)
