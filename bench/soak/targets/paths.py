"""Names of files and globs: what the daemon lets through, init takes too; matching agrees with a slower reading."""

import fnmatch
from functools import cache

from bench.soak.target import Broken, Target
from sandboxd.errors import InvalidRequest
from sandboxd.profile.program import relative_path
from sandboxd.spawner import files

MAX_PARTS = 12  # the slower reading takes exponential time
# What opens, reads and writes, which target `workspace` tries.
TOUCHES = (
    *(f"files.{name}" for name in ("as_user", "put", "collect", "_descend", "_copy")),
    *(f"files.Collection.{name}" for name in ("__init__", "visit", "_consider", "_open", "_skip")),
)


def run(data: bytes) -> object:
    """First line the glob, second line the path."""
    text = data.decode("utf-8", "surrogateescape")
    pattern, _, path = text.partition("\n")
    relative_path("pattern", pattern)
    relative_path("path", path)
    globs, names = tuple(files._parts(pattern)), tuple(files._parts(path))
    found = files._matches(globs, names)
    if len(globs) <= MAX_PARTS and len(names) <= MAX_PARTS and found is not matches_slowly(globs, names):
        raise Broken(f"{globs} and {names}: {found}")
    for depth in range(1, len(names)):
        if found and not files._leads_to(globs, names[:depth]):
            raise Broken(f"{globs} matches {names}, but does not lead to {names[:depth]}")
    return path if found else None


@cache
def matches_slowly(globs: tuple[str, ...], names: tuple[str, ...]) -> bool:
    if not globs:
        return not names
    hidden = bool(names) and names[0].startswith(".") and not globs[0].startswith(".")
    if globs[0] == "**":
        return matches_slowly(globs[1:], names) or (bool(names) and not hidden and matches_slowly(globs, names[1:]))
    if not names or hidden:
        return False
    return fnmatch.fnmatchcase(names[0], globs[0]) and matches_slowly(globs[1:], names[1:])


def target() -> Target:
    seeds = (b"out/**/*.txt\nout/a/b.txt", b"**\n.hidden/x", b"a/[a-c]?/x\na/b1/x", b"../x\n/y", b"a//b\na", b"x\ny")
    words = (b"**/", b"*", b"?", b"[!a]", b"[z-a]", b"/", b".", b"..", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\0")
    modules = ("sandboxd.spawner.files",)
    return Target("paths", modules, run, (InvalidRequest,), seeds, words, max_bytes=512, outside=TOUCHES)
