"""What the kernel tells of a sandbox's processes, read from outside while they run or are frozen.

Names, arguments and paths are theirs, and nothing but text here. Runs in the child that `examine` makes.
"""

import os
from collections.abc import Iterator

MAX_PROCESSES = 4096
MAX_DESCRIPTORS = 256
MAX_TEXT_BYTES = 4096
MAX_CHARS = 16 << 20  # of their texts together, which can have megabytes each: beyond, only what the kernel says
_FIELDS = (
    "Name",
    "State",
    "Tgid",
    "PPid",
    "NSpid",
    "Uid",
    "Gid",
    "Threads",
    "VmRSS",
    "Seccomp",
    "NoNewPrivs",
    "CapEff",
)

Process = dict[str, object]


def tree(proc: int, root: int) -> list[Process]:
    """`root` and all below it, parents first; `proc` is a descriptor of a proc of that pid's namespace."""
    children: dict[int, list[int]] = {}
    for pid in map(int, filter(str.isdecimal, os.listdir(proc))):
        parent = _parent(proc, pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    found: list[Process] = []
    chars = 0
    for pid in _below(root, children):
        if len(found) >= MAX_PROCESSES:
            break
        process = _process(proc, pid)
        if process is None:
            continue
        if chars < MAX_CHARS:
            texts = _texts(proc, pid)
            chars += len(str(texts))
            process |= texts
        else:
            process["left_out"] = "over what texts may take"
        found.append(process)
    return found


def _below(root: int, children: dict[int, list[int]]) -> Iterator[int]:
    level = [root]
    while level:
        yield from level
        level = [child for pid in level for child in sorted(children.get(pid, ()))]


def _parent(proc: int, pid: int) -> int | None:
    stat = _read(proc, f"{pid}/stat")
    return None if stat is None else int(stat[stat.rindex(b")") + 2 :].split()[1])


def _process(proc: int, pid: int) -> Process | None:
    status = _read(proc, f"{pid}/status")
    if status is None:
        return None
    lines = dict(line.split(":", 1) for line in text(status).split("\n") if ":" in line)
    return {"pid": pid, **{name.lower(): " ".join(lines[name].split()) for name in _FIELDS if name in lines}}


def _texts(proc: int, pid: int) -> Process:
    """What it chose itself."""
    return {
        "argv": [text(word) for word in (_read(proc, f"{pid}/cmdline") or b"").rstrip(b"\0").split(b"\0")],
        "exe": _link(proc, f"{pid}/exe"),
        "cwd": _link(proc, f"{pid}/cwd"),
        "fds": _descriptors(proc, pid),
    }


def _descriptors(proc: int, pid: int) -> dict[str, str | None] | None:
    """None where the kernel does not show them: of init, and of what has not become a program yet."""
    try:
        directory = os.open(f"{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return None
    try:
        names = sorted(os.listdir(directory), key=int)[:MAX_DESCRIPTORS]
        return {name: _link(directory, name) for name in names}
    except OSError:
        return None
    finally:
        os.close(directory)


def _link(directory: int, name: str) -> str | None:
    try:
        return text(os.fsencode(os.readlink(name, dir_fd=directory)))
    except OSError:
        return None


def _read(proc: int, name: str) -> bytes | None:
    """None once it is gone."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return None
    try:
        return os.read(fd, MAX_TEXT_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)


def text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
