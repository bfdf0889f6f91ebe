"""A caller of the daemon in a process of its own, so that it can be another user's: `python -m bench.caller ADDRESS`.

Reads one JSON order a line, executes, answers one JSON line. Times are its own, so the pipe to it does not count; its
interpreter is up and its connection made before the first order. Started by `ours`.
"""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sandboxd.client import Accepted, Chunk, Client, Result


def main(arguments: Sequence[str]) -> int:
    with Client(arguments[0]) as client:
        client.capabilities()
        for line in sys.stdin:
            order = json.loads(line)
            program, callers, count = order["argv"], order["callers"], order["count"]
            if callers == 1:
                answer = [execute(client, program) for _ in range(count)]
            else:
                with ThreadPoolExecutor(callers) as pool:
                    answer = list(pool.map(execute, [client] * count, [program] * count))
            sys.stdout.write(json.dumps({"runs": answer}) + "\n")
            sys.stdout.flush()
    return 0


def execute(client: Client, program: list[str]) -> dict[str, object]:
    """Nanoseconds since the request: accepted, first byte, end; `began` by the wall clock, for the journal's times."""
    times: dict[str, object] = {"began": time.time_ns(), "first": None}
    began = time.perf_counter_ns()
    for event in client.execute(program):
        now = time.perf_counter_ns() - began
        match event:
            case Accepted():
                times |= {"accepted": now, "id": event.execution_id}
            case Chunk() if times["first"] is None:
                times["first"] = now
            case Result():
                if event.exit_code != 0:
                    raise SystemExit(f"{program} ended with {event.end_reason} {event.exit_code}: {event.stderr!r}")
                times["total"] = now
    return times


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
