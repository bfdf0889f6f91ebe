"""A policy bundle on the disk: a module, its data and its manifest, divided by NUL; read, then searched for calls."""

import json
import re
import tempfile
from pathlib import Path

from bench.soak.target import Broken, Target
from sandboxd.errors import PolicyInvalid
from sandboxd.policy.bundle_manifest import MANIFEST
from sandboxd.policy.rego_builtins import check_calls
from sandboxd.policy.rego_bundle import DATA, read_bundle
from sandboxd.settings.paths import shipped

FORBIDDEN = ("http.send(", "opa.runtime(", "net.lookup_ip_addr(")
# In the middle of a line that is no definition of its own.
_UNPROVEN = re.compile(r"(:=|==|\bif|\bnot)\s+(http\.send|opa\.runtime|net\.lookup_ip_addr)\(")


def target() -> Target:
    directory = tempfile.TemporaryDirectory(prefix="sandboxd-fuzz-", dir="/dev/shm")
    place = Path(directory.name)

    def run(data: bytes) -> object:
        _ = directory  # lives as long as this function
        module, _, rest = data.partition(b"\0")
        document, _, manifest = rest.partition(b"\0")
        for name, content in (("a.rego", module), (DATA, document or b"{}"), (MANIFEST, manifest or b"{}")):
            (place / name).write_bytes(content)
        bundle = read_bundle([place])
        if not bundle.revision or not isinstance(json.loads(bundle.data_json), dict):
            raise Broken(f"{bundle!r}")
        check_calls(bundle.modules)
        source = bundle.modules[0][1]
        if not set('"`#') & set(source) and _UNPROVEN.search(source):
            raise Broken("a call that is not proven went through")
        return bundle

    shipped_policy = sorted(shipped("policies").rglob("*.rego"))[0].read_bytes()[:4000]
    small = (
        b'package sandboxd\n\nimport data.lib.x as y\n\nx := {"verdict": "allow"} if f(input.a)\n\nf(a) := count(a)\n'
    )
    seeds = (
        shipped_policy,
        small + b'\0{"a": {"b": [1, null, "c"]}}\0{"revision": "r1"}',
        b"package a\nx := count ([1]) # (\ny := `http.send(`\n",
    )
    words = (
        *(call.encode() for call in FORBIDDEN),
        b"\0",
        b"`",
        b'"',
        b"#",
        b"[" * 200,
        b"\ndefault f(",
        b"import data.",
        b"1e999",
    )
    modules = ("sandboxd.policy.rego_bundle", "sandboxd.policy.rego_builtins")
    return Target("policy", modules, run, (PolicyInvalid,), seeds, words)
