"""Where spawner and daemon spend their time: sampled by py-spy (dependency group `bench`) while a caller keeps calling.

Writes folded stacks, one file a process, for any flame graph viewer, and prints who was on top. Called by `__main__`.
"""

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from bench import report
from bench.host import say
from bench.ours import Ours
from bench.race import PROGRAMS

_RATE = 500
_TOP = 25


def flame(node: Ours, seconds: int, directory: Path) -> None:
    """Folded stacks into `directory`, tables to standard output."""
    binary = Path(sys.executable).with_name("py-spy")
    if not binary.exists():
        raise SystemExit("py-spy is not installed: pip install --group bench")
    directory.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    load = threading.Thread(target=_call_until, args=(node, stop))
    load.start()
    try:
        targets = {"daemon": node.daemon_pid(), "spawner": node.daemon.process.pid}
        files = {name: directory / f"{node.daemon.mode}-{name}.folded" for name in targets}
        options = ["--format", "raw", "--rate", str(_RATE), "--duration", str(seconds), "--nonblocking"]
        recorders = [
            subprocess.Popen(
                [str(binary), "record", "--pid", str(pid), "--output", str(files[name]), *options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, pid in targets.items()
        ]
        for recorder in recorders:
            recorder.wait()
    finally:
        stop.set()
        load.join()
    for name, file in files.items():
        _top(name, file)


def _call_until(node: Ours, stop: threading.Event) -> None:
    while not stop.is_set():
        node.execute(PROGRAMS[0], 20)


def _top(name: str, file: Path) -> None:
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    say(f"### {name}: {total} samples, stacks in {file}\n")
    rows = [(frame, _share(count, total), _share(within[frame], total)) for frame, count in own.most_common(_TOP)]
    report.table(("function", "itself", "with what it calls"), rows)
    ours = [(frame, count) for frame, count in within.most_common() if "sandboxd" in frame][:_TOP]
    report.table(("of ours", "with what it calls"), [(frame, _share(count, total)) for frame, count in ours])


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %"
