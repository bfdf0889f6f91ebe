"""The configuration's YAML."""

import re

from bench.soak.target import Target
from sandboxd.config import Config, parse
from sandboxd.errors import ConfigInvalid

FULL = b"""\
listen: [{unix: /run/s.sock}]
state_dir: /var/lib/s
profiles: {paths: [/etc/p]}
policy: {engine: rego, paths: [/etc/r], deadline_seconds: 0.5}
runtimes: {process: {ids: {start: 100000, count: 65536}, daemon_user: sandboxd, blank_stock: 2}}
audit: {durability: fsync, segment_bytes: 65536}
sinks:
  - type: stdout
    required: true
limits: {max_concurrent: 8, max_per_minute: 60, retained_executions: 4, retained_bytes: 1024}
allowed_uids: [1000]
drain_grace_seconds: 3
log: {level: debug, format: text}
"""


LEAST = b"runtimes: {process: {daemon_user: somebody}}\n"


def run(data: bytes) -> object:
    config: Config = parse(data, "fuzz.yaml", as_root=True)
    _ = config.socket_path, config.profile_paths, config.policy.bundle_paths
    return config


def target() -> Target:
    sections = re.split(rb"\n(?=\w)", FULL)  # one at a time: the YAML of all takes ten times as long
    seeds = (
        *sections,
        LEAST,
        b"",
        b"{}",
        b"listen:\n  - tcp: x\n",
        b"a: &a [*a]",
        b"? [a]\n: b\n",
        b"state_dir: !!binary aGk=\n",
    )
    words = (
        *dict.fromkeys(re.findall(rb"[a-z_]{3,}:?|[{}\[\]] ?", FULL)),
        b"&a ",
        b"*a",
        b"!!timestamp ",
        b"!!set ",
        b"<<: ",
        b"---\n",
        b"%YAML 1.1\n",
        b"2001-01-01",
        b"0o7",
        b".inf",
        b"? ",
    )
    outside = ("config.load",)  # opens the file
    return Target("config", ("sandboxd.config",), run, (ConfigInvalid,), seeds, words, outside=outside)
