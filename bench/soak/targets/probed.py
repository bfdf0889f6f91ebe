"""The probe's output, as the daemon and `sandboxd check` read it."""

import json

from bench.soak.target import Target
from sandboxd.errors import RuntimeFailed
from sandboxd.host.probed import decode
from sandboxd.model import Guarantee, State

STARTS = ("probed.probe",)


def target() -> Target:
    whole = {
        "mode": "root",
        "refusal": "",
        "kernel": "6.1",
        "landlock_abi": 6,
        "memfd": "sysctl",
        "cgroup": {"version": "v2", "controllers": ["memory", "pids"], "reason": ""},
        "facts": [[str(next(iter(Guarantee))), str(next(iter(State))), "a,b", "why"]],
    }
    seeds = (json.dumps(whole).encode(), json.dumps({**whole, "facts": []}).encode(), b"{}", b"")
    words = (b"1e999", b"NaN", b"9" * 40, b'"\\ud800"', b"null", b"[" * 200, *(str(item).encode() for item in State))
    return Target("probed", ("sandboxd.host.probed",), decode, (RuntimeFailed,), seeds, words, outside=STARTS)
