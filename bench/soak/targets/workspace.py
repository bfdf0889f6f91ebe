"""A workspace in hostile hands: files, directories, links and pipes in it while init writes to it and collects from it.

A line a thing: its first letter is the kind (`f`, `d`, `p`; `1`-`4` a link to one of `LINKS`), `w` is a path that init
writes to, `c` a glob that it collects. What comes out must be a regular file of that name, reached through no link.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from bench.soak.target import Broken, Target
from bench.soak.targets.paths import matches_slowly
from sandboxd.spawner import files

LINKS = ("..", "b", "/dev/null", ".")  # all that the things of a tree may lead to, since this runs on a real host
MAX_PARTS = 6
MAX_LINES = 24


def run(data: bytes) -> object:
    text = data.decode("utf-8", "surrogateescape")
    lines = [(line[:1], line[1:]) for line in text.split("\n")[:MAX_LINES] if line]
    with tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm") as outer:
        root = Path(outer, "workspace")
        root.mkdir()
        vars(files)["WORKSPACE"] = str(root)  # it is the sandbox's own otherwise
        for kind, name in lines:
            with contextlib.suppress(OSError):
                _make(root, kind, name)
        put = [name for kind, name in lines if kind == "w" and _put(root, name)]
        globs = tuple(name for kind, name in lines if kind == "c" and len(name.split("/")) <= MAX_PARTS)
        with contextlib.suppress(OSError):
            put += _collected(root, globs)
        shutil.rmtree(root)
        root.mkdir()
    return put


def _make(root: Path, kind: str, name: str) -> None:
    parts = name.split("/")
    if kind in "cw" or len(parts) > MAX_PARTS or "\0" in name or any(part in ("", ".", "..") for part in parts):
        return
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "f":
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:  # no pipe, no link
                file.write(b"content")
        case "d":
            path.mkdir()
        case "p":
            os.mkfifo(path)
        case "1" | "2" | "3" | "4":
            path.symlink_to(LINKS[int(kind) - 1])


def _put(root: Path, name: str) -> bool:
    content = os.memfd_create("fuzz", os.MFD_CLOEXEC)
    try:
        os.write(content, b"put")
        files.put(name, 0o644, content, os.geteuid())
    except OSError:
        return False
    finally:
        os.close(content)
    if os.path.realpath(root / name) != str(root / name) or (root / name).read_bytes() != b"put":
        raise Broken(f"{name!r} was written somewhere else")
    return True


def _collected(root: Path, globs: tuple[str, ...]) -> list[str]:
    found = files.collect(globs, 3, 16, os.geteuid())
    for opened in found.opened:
        try:
            here, there = os.fstat(opened.fd), os.lstat(root / opened.path)
        finally:
            os.close(opened.fd)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) or os.path.realpath(root / opened.path) != str(
            root / opened.path
        ):
            raise Broken(f"{opened!r} is not what has that name")
        if not any(matches_slowly(tuple(glob.split("/")), tuple(opened.path.split("/"))) for glob in globs):
            raise Broken(f"{opened.path!r} is not of {globs!r}")
    if len(found.opened) > 3 or sum(opened.size for opened in found.opened) > 16:
        raise Broken("more than was asked for")
    return [opened.path for opened in found.opened]


def target() -> Target:
    seeds = (
        b"fa/b.txt\nfa/c.txt\nda/d\nc**/*.txt\nwout/new",
        b"1up\n2link\nfb\nwlink/x\nwup/y\nclink\nc*",
        b"fa\nfb\nfc\nfd\nc*\nwa",
        b"pq\n3null\n4here\nf.hidden\ncq\ncnull\nc**\nc.*\nwnull",
        b"fa\xff\nf\xe2\x80\xa8\nc*",
    )
    words = (b"\nw", b"\nc", b"\n1", b"**/", b"../", b"/", b"*", b"[!a]", b"\xff", b"\0")
    return Target("workspace", ("sandboxd.spawner.files",), run, (), seeds, words, max_bytes=512)
