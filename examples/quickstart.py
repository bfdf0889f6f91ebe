"""Runs two programs in sandboxes of the local daemon: one that behaves and one that does not.

Start a daemon first (`sandboxd serve`), then: python examples/quickstart.py
"""

# ruff: noqa: T201  an example speaks to a person

from sandboxd.client import Client, SandboxdError

WELL_BEHAVED = """
import json, sys
rows = [int(line) for line in sys.stdin]
with open("report.json", "w") as file:
    json.dump({"sum": sum(rows)}, file)
print("summed", len(rows), "numbers")
"""

HOSTILE = """
import os, socket
for attempt in (lambda: open("/etc/shadow"), lambda: os.setuid(0), lambda: socket.create_connection(("1.1.1.1", 80))):
    try:
        attempt()
        print("it worked")
    except OSError as error:
        print(error.strerror)
while True:
    pass
"""


def main() -> None:
    with Client() as client:
        done = client.run_code(WELL_BEHAVED, profile="python", stdin=b"1\n2\n39\n", collect=["*.json"])
        print(done.stdout.decode(), end="")
        print("collected:", {file.path: file.content.decode() for file in done.files})

        stopped = client.run_code(HOSTILE, profile="python", limits={"wall_seconds": 2})
        print(stopped.stdout.decode(), end="")
        print(
            "ended by", stopped.end_reason, "after", round(stopped.usage.wall_seconds), "s:", stopped.message_for_agent
        )
        for row in stopped.enforcement.rows[:3]:
            print(f"{row.guarantee}: {row.state} by {', '.join(row.layers)}")

        try:
            client.run(["true"], profile="python", limits={"memory_bytes": 1 << 50})
        except SandboxdError as refused:
            print("refused:", refused.reason)


if __name__ == "__main__":
    main()
