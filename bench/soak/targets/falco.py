"""A line of the journal as bytes on the disk, down to the Falco event that is sent of it: no record stops a sink."""

import json
import random

from bench.soak.target import Broken, Target
from sandboxd.audit.line import ORIGIN, LineDamaged, body, decode, encode
from sandboxd.sink.falco_event import MOST_BYTES, falco_line
from tests.falcosidekick_port import PRIORITIES, Rejected, accept
from tests.hostile import KINDS, hostile

LONGEST_SEED = 3000


def target() -> Target:
    def run(data: bytes) -> object:
        record = decode(data)
        sent = falco_line(record)
        event = json.loads(sent)
        if not sent.isascii() or sent.count(b"\n") != 1:
            raise Broken("it is not one line of ASCII")
        for name, value in event["output_fields"].items():
            if isinstance(value, dict | list) or (isinstance(value, str) and len(value.encode()) > MOST_BYTES):
                raise Broken(f"{name!r} is nothing that Falco has")
        try:
            payload = accept(sent)
        except Rejected as error:
            if record.rule and record.priority in PRIORITIES:
                raise Broken(f"falcosidekick would refuse it: {error}") from error
            return None
        if json.loads(payload.marshalled())["output_fields"] != event["output_fields"]:
            raise Broken("falcosidekick would pass it on otherwise")
        return event["output_fields"]

    made = (hostile(random.Random(seed), kind) for seed, kind in enumerate(KINDS))
    lines = (encode(body(event), ORIGIN, "b", "n", 10**18)[:-1] for event in made)
    seeds = tuple(line for line in lines if len(line) <= LONGEST_SEED)
    words = (b"1e999", b"NaN", b"-Infinity", b"9" * 40, b"null", b'"\\ud800"', b'"\\u0000"', b"[" * 20, b"{}")
    modules = ("sandboxd.sink.falco_event",)
    return Target("falco", modules, run, (LineDamaged,), seeds, words, max_bytes=LONGEST_SEED)
