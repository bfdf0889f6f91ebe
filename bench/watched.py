"""What watching a node adds to an Execute: metrics, traces to a collector that takes them, and to one that does not.

Nodes that differ in nothing else run the same program in turn, in another order each round. Called by `__main__`.
"""

import contextlib
import random
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench import report
from bench.host import say
from bench.ours import Ours, ours
from tests.daemon import Mode
from tests.opa import free_port

WARM_ROUNDS = 5
READ_SECONDS = 1.0
_SEED = 11


class _Taking(BaseHTTPRequestHandler):
    """A collector that takes everything and looks at nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def watched(mode: Mode, program: Sequence[str], rounds: int, gap: float) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(_collector())
        settings = {
            "not watched": "",
            "not watched, again": "",  # what a difference of nothing looks like
            "metrics, read each second": f"metrics: {{listen: '127.0.0.1:{port}'}}\n",
            "traces and metrics over OTLP": f"telemetry: {{otlp: {{url: '{url}'}}, metrics_seconds: 1}}\n",
            "the same, nobody there": "telemetry: {otlp: {url: 'http://127.0.0.1:1'}, metrics_seconds: 1}\n",
        }
        nodes = {name: stack.enter_context(ours(mode, text)) for name, text in settings.items()}
        stack.enter_context(_reading(port))
        totals, cpu = _interleaved(nodes, program, rounds, gap)
    plain = totals["not watched"]
    say(f"### What watching adds to an Execute of `{program[0]}`, {mode} (milliseconds)\n")
    rows = []
    for name, times in totals.items():
        added = statistics.median(mine - theirs for mine, theirs in zip(times, plain, strict=True))
        ratio = statistics.median(times) / statistics.median(plain)
        rows.append((name, f"{statistics.median(times):.2f}", f"{added:+.3f}", f"{ratio:.3f}", f"{cpu[name]:.1f}"))
    report.table(("", "median", "added, of pairs", "/ not watched", "CPU each"), rows)


def _interleaved(
    nodes: dict[str, Ours], program: Sequence[str], rounds: int, gap: float
) -> tuple[dict[str, list[float]], dict[str, float]]:
    totals: dict[str, list[float]] = {name: [] for name in nodes}
    before = dict.fromkeys(nodes, 0.0)
    order, names = random.Random(_SEED), list(nodes)
    for number in range(-WARM_ROUNDS, rounds):
        if number == 0:
            before = {name: node.cpu() for name, node in nodes.items()}
        for name in order.sample(names, len(names)):
            run = nodes[name].execute(program)[0]
            if number >= 0:
                totals[name].append(run.total)
            time.sleep(gap)
    return totals, {name: (node.cpu() - before[name]) / rounds for name, node in nodes.items()}


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Taking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def _reading(port: int) -> Iterator[None]:
    over = threading.Event()

    def read() -> None:
        while not over.wait(READ_SECONDS):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
                page.read()

    reader = threading.Thread(target=read)
    reader.start()
    yield
    over.set()
    reader.join()
