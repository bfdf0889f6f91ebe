"""Replays a corpus under coverage.py: how much of the functions that a target answers for its inputs run.

Lines and branches inside functions only, and only what the inputs run: neither what an import runs (definitions) nor
what the target needs before its first input counts. A process of its own, since an input may end it.
`python -m bench.soak.covered TARGET DIRECTORY` prints a percentage, then what was not reached, by function.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage

from bench.soak.crashes import Run
from bench.soak.target import Target, load


@dataclass(frozen=True, slots=True)
class Function:
    """Lines and branches are counted together."""

    name: str
    reached: int
    all: int
    missing: tuple[int, ...]  # lines


def functions(target: Target, corpus: Path) -> list[Function]:
    """Each that counts; ValueError where what the target leaves out is not there, or is reached after all."""
    run = Run(target)
    measured = coverage.Coverage(data_file=None, branch=True, include=["*/sandboxd/*"], config_file=False)
    measured.start()
    for path in sorted(corpus.iterdir()):
        with run.one(data := path.read_bytes()):
            target.run(data)
    measured.stop()
    found = list(_functions(measured, target))
    wrong = set(target.outside) - {function.name for function in found if not function.reached}
    if wrong:
        raise ValueError(f"target {target.name!r} leaves out {sorted(wrong)!r}: reached, or not there")
    return [function for function in found if function.name not in target.outside]


def percent(found: list[Function]) -> float:
    return 100 * sum(function.reached for function in found) / sum(function.all for function in found)


def _functions(measured: coverage.Coverage, target: Target) -> Iterator[Function]:
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        files = {str(sys.modules[module].__file__): module for module in target.modules}
        measured.json_report(morfs=list(files), outfile=report.name)
        told = json.load(report)
    modules = {Path(file).resolve(): module.rpartition(".")[2] for file, module in files.items()}
    for file, content in told["files"].items():
        module = modules[Path(file).resolve()]
        for name, function in content["functions"].items():
            if name:  # the empty one is what is outside of all functions
                of = function["summary"]
                reached, most = of["covered_lines"] + of["covered_branches"], of["num_statements"] + of["num_branches"]
                yield Function(f"{module}.{name}", reached, most, tuple(function["missing_lines"]))


if __name__ == "__main__":
    counted = functions(load(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(f"{percent(counted):.1f}\n")
    for function in counted:
        if function.reached < function.all:
            sys.stdout.write(f"{function.name}: {function.reached} of {function.all}, not lines {function.missing}\n")
