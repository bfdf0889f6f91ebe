"""Values of `sandboxctl run`, one option a line, down to the request that would be sent."""

from bench.soak.target import Target
from sandboxd.cli import values
from sandboxd.cli.mistake import Mistake
from sandboxd.client.errors import InvalidRequest
from sandboxd.client.model import Code, Options
from sandboxd.client.request import execute_request


def run(data: bytes) -> object:
    """A first letter says which option; no NUL, which no argument can have."""
    lines = [line.decode("utf-8", "surrogateescape") for line in data.replace(b"\0", b"").split(b"\n")]
    by_kind = {kind: [line[1:] for line in lines if line[:1] == kind] for kind in "lebskfginca"}
    for name in by_kind["s"]:
        values.signal_number(name)
    options = Options(
        limits=values.limits(by_kind["l"]),
        env=values.environment(by_kind["e"]),
        labels=values.labels(by_kind["b"]),
        collect=by_kind["k"],
        files={**values.input_files([f"{__file__}:{name}" for name in by_kind["f"]]), "plain": b""},
        isolation="".join(by_kind["i"]),
        network="".join(by_kind["n"]),
    )
    request = execute_request(Code(*by_kind["c"]) if len(by_kind["c"]) == 2 else by_kind["a"], options)
    values.input_files([f"/nonexistent/{name}" for name in by_kind["g"]])
    paths = [file.path for file in request.files]
    return tuple(request.collect), dict(request.env), dict(request.labels), paths, request.network


def target() -> Target:
    seeds = (
        b"lmemory=512MiB\nlwall=10s\nlcpus=1.5\nlidle=500ms\nlio_read=1GB",
        b"eA=b\nbteam=red\nkout/*\nsTERM\ns15",
        b"s999\nlpids=64\nea=\xff",
        b"fa:b\nfdata/in.csv\niprocess\nnnone\nax\nay",
        b"cpython\ncprint(1)\nigvisor",
        b"ikata\nlopen_files=1.5\nlwall=1e400",
        b"ga:b\ng:\ngx",
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
