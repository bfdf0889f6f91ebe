"""The guided driver, a process of its own: atheris (libFuzzer) mutates, coverage of sandboxd and comparisons guide it.

Imports nothing of sandboxd before it is instrumented, and ends its process itself, as libFuzzer does. Started by
`campaign`, as `python -m bench.soak.guided TARGET CPU_SECONDS DIRECTORY [--planted]`.
"""

import atexit
import hashlib
import logging
import os
import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sandboxd", "bench.soak.planted", "bench.soak.targets"]):
    from bench.soak.planted import Planted, planted
    from bench.soak.target import load

    TARGET = load(sys.argv[1])

from bench.soak.crashes import Run
from bench.soak.mutation import Accepted, mutated

CHECKED_EVERY = 64
HANG_SECONDS = 600  # by the clock, and whoever measures something else may stop us meanwhile


def main(cpu_seconds: float, directory: Path, *, plant: bool) -> None:
    logging.disable()  # what a target says of bad input, thousands of times
    target = planted(TARGET) if plant else TARGET
    run = Run(target)
    chance = random.Random()
    accepted = Accepted(target, chance)
    corpus = directory / "corpus"
    words = directory / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))

    came_through = b""

    def one(data: bytes) -> None:
        nonlocal came_through
        if came_through and (corpus / hashlib.sha1(came_through).hexdigest()).exists():  # libFuzzer kept it
            accepted.add(came_through)
        came_through = b""
        with run.one(data):
            if target.run(data) is not None:
                came_through = data
        enough = run.executions % CHECKED_EVERY == 0 and run.cpu_seconds > cpu_seconds
        if enough or (plant and run.found(Planted)):
            (directory / "result.json").write_text(run.as_json())
            atexit._run_exitfuncs()  # the targets' directories
            os._exit(0)  # libFuzzer has no other end

    def changed(data: bytes, most: int, _: int) -> bytes:
        def bytewise(piece: bytes) -> bytes:
            return bytes(atheris.Mutate(piece, most))

        if chance.random() < 0.5:
            data = accepted.one()
        return mutated(target, data, chance, bytewise)[:most]

    options = [
        f"-max_len={target.max_bytes}",
        f"-timeout={HANG_SECONDS}",
        "-rss_limit_mb=1024",
        "-mutate_depth=2",  # what one change broke is not mended by three more
        f"-artifact_prefix={directory}/",
    ]
    if target.words:
        options.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], *options, "-verbosity=0", str(corpus)], one, custom_mutator=changed)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries want it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(float(sys.argv[2]), Path(sys.argv[3]), plant="--planted" in sys.argv[4:])
