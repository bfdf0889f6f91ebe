"""A profile's YAML: parsed by itself, then, if it passes, put together with its parent."""

import re
from functools import cache

from bench.soak.target import Broken, Target
from sandboxd.errors import ProfileInvalid
from sandboxd.profile import load

NAME = "fuzz.yaml"
FILES = (
    *(f"load.ProfileSet.{name}" for name in ("names", "get", "__iter__")),
    *(f"load.{name}" for name in ("load_profiles", "_files", "_bytes")),
)
SMALL = b"""\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {name: small, labels: {team: red}}
spec:
  description: small
  isolation: process
  root:
    binds:
      - {source: /usr, executable: true, why: programs of the host}
      - {source: /opt/data, target: /data, optional: true, why: data of the host}
    symlinks: [{path: /bin, to: usr/bin, why: as everywhere}]
    files: [{path: /etc/hostname, content: "sandbox\\n", why: programs ask for it}]
  workspace: {executable: false}
  proc: subset
  network: none
  cwd: /workspace
  env: {fixed: {HOME: /workspace}, allow: ["APP_*"]}
  interpreters: [{language: python, argv: [/usr/bin/python3, "{file}"], file_name: main.py}]
  seccomp:
    allow:
      - {names: [execve, exit_group, read, write], why: the least that runs}
      - {names: [socket], args: [{index: 0, one_of: [1]}], why: local sockets only}
    deny: [{names: [flock], errno: ENOSYS, why: no locks at all}]
  landlock: {scopes: true, paths: [{path: /usr, access: exec, why: programs of the host}]}
  limits: {wall_seconds: 5, idle_seconds: 0, cpu_seconds: 5, cpus: 1, memory_bytes: 64MiB, pids: 8, open_files: 64,
           file_size_bytes: 1MiB, workspace_bytes: 1MiB, workspace_inodes: 64, tmp_bytes: 1MiB, tmp_inodes: 64,
           stdout_bytes: 1KiB, stderr_bytes: 1KiB, output_bytes: 1MiB, output_files_bytes: 1MiB, output_files: 4,
           io_read_bytes_per_second: 0, io_write_bytes_per_second: 0}
  enforcement: {default: best_effort, guarantees: {limit.wall: require}}
"""


LEAST = b"""\
{apiVersion: sandboxd.io/v1, kind: SandboxProfile, metadata: {name: least}, spec: {extends: base, description: x}}
"""

EXTENDING = b"""\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {name: child}
spec:
  extends: base
  description: less
  env: {fixed: {HOME: /tmp}, allow: []}
  root: {binds: [{source: /usr/lib, why: libraries of the host}]}
  without: {syscalls: [read]}
  seccomp: {deny: [{names: [write], errno: ENOSYS, why: less than the parent}]}
  limits: {memory_bytes: 16MiB, pids: 2}
"""


BASE = SMALL.replace(b"name: small", b"name: base")


def run(data: bytes) -> object:
    source = parse(data, NAME)
    # The parent is parsed once, since that takes most of the time of the inputs that get so far.
    resolved = load._resolved(source, {source.profile.metadata.name: source, "base": base()}, True)
    if len(resolved.digest) != 64:
        raise Broken(f"digest {resolved.digest!r}")
    return resolved.name, resolved.description, resolved.labels, resolved.env


def parse(data: bytes, name: str) -> load.Source:
    try:
        return load.parse(data, name)
    except ProfileInvalid as error:
        if not error.message.startswith(f"{name}:"):
            raise Broken(f"a complaint without its place: {error.message!r}") from error
        raise


@cache
def base() -> load.Source:
    return load.parse(BASE, "base.yaml")


def target() -> Target:
    base()  # now, so that no input is blamed for it
    # A section at a time: the YAML of all takes ten times as long.
    sections = re.split(rb"\n(?=  \w)", SMALL[SMALL.index(b"  root") :])
    head = SMALL[: SMALL.index(b"  description")] + b"  extends: base\n  description: x\n"
    seeds = (LEAST, SMALL, EXTENDING, *(head + section for section in sections), b'{"a": [1, "\\x41", 0x1f, .5e3]}')
    words = (
        *dict.fromkeys(re.findall(rb"[a-zA-Z_]{3,}:?|[{}\[\]] ?", SMALL + EXTENDING)),
        b"&a ",
        b"*a",
        b"!!python/object:os.system ",
        b"<<: ",
        b"---\n",
        b"\xef\xbb\xbf",
        b"%YAML 1.1\n",
        b"? ",
        b"|2-\n",
    )
    modules = (
        "sandboxd.profile.document",
        "sandboxd.profile.load",
        "sandboxd.profile.schema",
        "sandboxd.profile.checks",
        "sandboxd.profile.inherit",
    )
    return Target("profile", modules, run, (ProfileInvalid,), seeds, words, outside=FILES)
