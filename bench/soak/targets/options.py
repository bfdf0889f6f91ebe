"""Values of `sandboxctl run`, one option a line, down to the request that would be sent."""

from bench.soak.target import Target
from sandboxd.cli import values
from sandboxd.cli.mistake import Mistake
from sandboxd.client.errors import InvalidRequest
from sandboxd.client.model import Options
from sandboxd.client.request import execute_request


def run(data: bytes) -> object:
    """A first letter says which option; no NUL, which no argument can have."""
    lines = [line.decode("utf-8", "surrogateescape") for line in data.replace(b"\0", b"").split(b"\n")]
    by_kind = {kind: [line[1:] for line in lines if line[:1] == kind] for kind in "lebskf"}
    for name in by_kind["s"]:
        values.signal_number(name)
    options = Options(
        limits=values.limits(by_kind["l"]),
        env=values.environment(by_kind["e"]),
        labels=values.labels(by_kind["b"]),
        collect=by_kind["k"],
    )
    request = execute_request(["x"], options)
    values.input_files([f"/nonexistent/{name}" for name in by_kind["f"]])
    return tuple(request.collect), dict(request.env), dict(request.labels)


def target() -> Target:
    seeds = (
        b"lmemory=512MiB\nlwall=10s\nlcpus=1.5\nlidle=500ms\nlio_read=1GB",
        b"eA=b\nbteam=red\nkout/*\nsTERM\ns15",
        b"s999\nlpids=64\nea=\xff",
        b"fa:b\nf:\nfx",
    )
    words = (
        b"9" * 320,
        b"1e9",
        b"lstdout_bytes=",
        b"lcpu=",
        b"GiB",
        b"ms",
        b"\xff",
        b"=",
        b"\xe0\xa5\xa7",
        b"SIG",
        b"h",
    )
    return Target(
        "options", ("sandboxd.cli.values", "sandboxd.client.request"), run, (Mistake, InvalidRequest), seeds, words
    )
