"""Replays a corpus under coverage.py: how much of the target's own modules the kept inputs reach, lines and branches.

A process of its own, since coverage has to see the modules' import. `python -m bench.soak.covered TARGET DIRECTORY`
prints one number, a percentage.
"""

import io
import sys
from pathlib import Path

import coverage

from bench.soak.crashes import Run
from bench.soak.target import load


def percent(name: str, corpus: Path) -> float:
    measured = coverage.Coverage(data_file=None, branch=True, include=["*/sandboxd/*"], config_file=False)
    measured.start()
    target = load(name)
    run = Run(target)
    for path in sorted(corpus.iterdir()):
        with run.one(data := path.read_bytes()):
            target.run(data)
    measured.stop()
    files = [str(sys.modules[module].__file__) for module in target.modules]
    return measured.report(morfs=files, file=io.StringIO())


if __name__ == "__main__":
    sys.stdout.write(f"{percent(sys.argv[1], Path(sys.argv[2])):.1f}\n")
