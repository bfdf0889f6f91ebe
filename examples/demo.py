"""`make run`: starts a daemon, runs a program and a hostile one through its Execute RPC, shows the record, stops it.

Everything it makes is in one temporary directory. Works as root and as an ordinary user; ends with 0 only if the first
program ran, the second was stopped, and nothing of it is left.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sandboxd.client import Accepted, Chunk, Client, Code, EndReason, Result, SandboxdError, State

HERE = Path(__file__).resolve().parent
START_SECONDS = 60.0
STOP_SECONDS = 30.0

PROGRAM = """\
import os, statistics, sys
squares = [n * n for n in range(1, 1001)]
print(f"mean of the first thousand squares: {statistics.mean(squares)}")
print(f"uid {os.getuid()}, pid {os.getpid()}, in {os.getcwd()}, Python {sys.version.split()[0]}")
print(f"files of the root directory: {' '.join(sorted(os.listdir('/')))}")
open("squares.txt", "w").write(" ".join(map(str, squares[:5])))
"""

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="sandboxd-demo-") as name:
        directory = Path(name)
        heading("Starting the daemon")
        with daemon(directory) as (client, state_dir):
            node = client.capabilities()
            say(f"sandboxd {node.version} answers on kernel {node.kernel}, started as {node.mode}")

            heading("A Python program, through the Execute RPC")
            show_source(PROGRAM)
            accepted, result = execute(client, PROGRAM)
            show_ending(accepted, result)
            show_audit(state_dir, result.execution_id)

            heading("A program that policy does not allow")
            refused = show_refusal(client)

            heading("A hostile program")
            stopped = show_hostile(client, directory, state_dir)
        heading("The daemon has stopped")
    good = result.ok and refused and stopped
    say("all went as promised" if good else "[red]something did not go as promised, see above[/red]")
    return 0 if good else 1


@contextlib.contextmanager
def daemon(directory: Path) -> Iterator[tuple[Client, Path]]:
    """A running `sandboxd serve` of its own; its log is shown if it does not come up."""
    home, log = directory / "home", directory / "log"
    home.mkdir(mode=0o700)
    directory.chmod(0o711)
    sock, state_dir, config = home / "run/sandboxd.sock", home / "state", home / "config.yaml"
    sock.parent.mkdir(mode=0o700)
    config.write_text(f"listen:\n  - unix: {sock}\nstate_dir: {state_dir}\ndrain_grace_seconds: 5\n")
    command = [sys.executable, "-m", "sandboxd", "serve", "--config", str(config)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
    try:
        with Client(f"unix:{sock}") as client:
            wait_until_it_answers(client, process, log)
            yield client, state_dir
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_answers(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.capabilities()
        except SandboxdError:
            time.sleep(0.1)
        else:
            return
    console.print(Text(log.read_text(errors="backslashreplace")))
    raise SystemExit(
        "sandboxd serve did not start; its log is above, and `sandboxd check` says what this machine lacks"
    )


def execute(client: Client, source: str) -> tuple[Accepted, Result]:
    """Output is shown as it comes."""
    accepted: Accepted | None = None
    partial = ""
    say("its output:")
    for event in client.execute(Code(source), profile="python", collect=["squares.txt"]):
        match event:
            case Accepted():
                accepted = event
            case Chunk():
                partial += event.data.decode(errors="backslashreplace")
                *lines, partial = partial.split("\n")
                for line in lines:
                    console.print(Text(f"    {line}", style="green" if event.stream == "stdout" else "red"))
            case Result() if accepted is not None:
                return accepted, event
            case _:
                pass
    raise SystemExit("the stream ended without a result")


def show_ending(accepted: Accepted, result: Result) -> None:
    usage = result.usage
    memory = "not measured" if usage.peak_memory_bytes is None else f"{usage.peak_memory_bytes / 1e6:.1f} MB"
    say(f"why it ended: [bold]{result.end_reason}[/bold], exit code {result.exit_code}")
    say(f"what it used: {usage.wall_seconds * 1000:.0f} ms, peak memory {memory}")
    say(f"files it left: {', '.join(f'{file.path} ({len(file.content)} bytes)' for file in result.files) or 'none'}")
    say(f"what enforced what (runtime {accepted.enforcement.runtime}, profile {accepted.profile}):")
    table = Table(box=None, pad_edge=False, show_header=False)
    colours = {State.ENFORCED: "green", State.DEGRADED: "yellow"}
    for row in accepted.enforcement.rows:
        why = ", ".join(row.layers) + (f"  {row.reason}" if row.reason else "")
        table.add_row(row.guarantee, Text(row.state, style=colours.get(row.state, "red")), Text(why))
    console.print(Padding(table, (0, 0, 0, 4)))


def show_audit(state_dir: Path, execution_id: str) -> None:
    """The records of that execution, and the last of them whole."""
    lines = [line for segment in sorted((state_dir / "journal").glob("*.jsonl")) for line in segment.open()]
    mine = [line for line in lines if execution_id in line]
    say("what the audit journal says about it (each line carries the SHA-256 of the line before):")
    for line in mine:
        record = json.loads(line)
        console.print(Text(f"    {record['seq']:>4}  {record['prev'][:12]}…  {record['rule']}", style="cyan"))
    for line in mine[-1:]:
        console.print(Padding(Text(line.strip(), style="dim", overflow="fold"), (0, 0, 0, 4)), soft_wrap=False)


def show_refusal(client: Client) -> bool:
    say("the same program, with a credential in its environment:")
    try:
        client.run_code(PROGRAM, profile="python", env={"AWS_SECRET_ACCESS_KEY": "not-a-real-one"})
    except SandboxdError as error:
        say(f"[bold]{type(error).__name__}[/bold] ({error.reason}): {error.message}")
        return True
    say("[red]it ran[/red]")
    return False


def show_hostile(client: Client, directory: Path, state_dir: Path) -> bool:
    """A secret and a listener on this machine, for the program to reach for."""
    canary = directory / "secret"
    canary.write_text("the secret of the host")
    canary.chmod(0o644)
    mark = f"hostile-{secrets.token_hex(8)}.py"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        result = client.run(
            ["/usr/bin/python3", mark, str(canary), str(port)],
            profile="python",
            files={mark: (HERE / "hostile.py").read_bytes()},
            limits={"wall_seconds": 20, "output_bytes": 1 << 20},
        )
        reached = was_reached(listener)
    table = Table(box=None, pad_edge=False, show_header=False)
    outcomes = dict(line.split("\t") for line in result.stdout.decode().splitlines() if line.count("\t") == 1)
    for what, outcome in outcomes.items():
        table.add_row(what, Text(outcome, style="red" if outcome == "SUCCEEDED" else "green"))
    console.print(Padding(table, (0, 0, 0, 4)))
    if result.stderr:
        console.print(Text(result.stderr.decode(errors="backslashreplace")[:2000], style="red"))
    left = survivors(mark)
    say(f"why it ended: [bold]{result.end_reason}[/bold] after {result.usage.stdout_bytes} bytes of output")
    say(f"the host's port was {'[red]reached[/red]' if reached else 'not reached'}")
    say(f"processes of it that are left: {len(left)}")
    show_audit(state_dir, result.execution_id)
    held = len(outcomes) > 10 and "SUCCEEDED" not in outcomes.values()
    return held and result.end_reason is EndReason.OUTPUT_LIMIT and not reached and not left


def was_reached(listener: socket.socket) -> bool:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True


def survivors(mark: str) -> list[str]:
    """Pids whose command line names the hostile program."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (process / "cmdline").read_bytes():
                    found.append(process.name)
    return found


def heading(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def say(text: str) -> None:
    console.print(f"  {text}")


def show_source(source: str) -> None:
    for line in source.splitlines():
        console.print(Text(f"    {line}", style="dim"))


if __name__ == "__main__":
    sys.exit(main())
