"""The driver that needs nothing installed: random mutations, kept when they reach lines of the target not seen before.

Slower than `guided` by an order of magnitude, since it asks the interpreter to tell every line. Used where atheris is
missing, and by the harness's own test. `python -m bench.soak.plain TARGET CPU_SECONDS DIRECTORY [--planted]`.
"""

import hashlib
import logging
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from bench.soak.crashes import Run
from bench.soak.mutation import Accepted, mutated
from bench.soak.planted import Planted, planted
from bench.soak.target import Target, load

Line = tuple[int, int]
TraceFunction = Callable[[FrameType, str, object], "TraceFunction | None"]


class Reached:
    """The lines of some modules that ran, as (code object, line) pairs."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._files = {sys.modules[name].__file__ for name in modules}
        self.lines: set[Line] = set()

    def trace(self, frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        return self._local if frame.f_code.co_filename in self._files else None

    def _local(self, frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        self.lines.add((id(frame.f_code), frame.f_lineno))
        return self._local


def fuzz(run: Run, corpus: list[bytes], enough: Callable[[], bool], chance: random.Random) -> list[bytes]:
    """Until `enough()`; the corpus with what was worth keeping."""
    target = run.target
    reached = Reached(target.modules)
    corpus = [b"", *corpus]
    pending = list(corpus)
    accepted = Accepted(target, chance)
    while not enough():
        fresh = not pending
        data = _mutated(corpus, accepted, target, chance) if fresh else pending.pop()
        before = len(reached.lines)
        sys.settrace(reached.trace)
        try:
            came_through = False
            with run.one(data):
                came_through = target.run(data) is not None
        finally:
            sys.settrace(None)
        if fresh and len(reached.lines) > before:
            corpus.append(data)
            if came_through:
                accepted.add(data)
    return corpus


def _mutated(corpus: list[bytes], accepted: Accepted, target: Target, chance: random.Random) -> bytes:
    # What was found last leads on more often than what has been tried for long.
    recent = -1 - min(int(chance.expovariate(0.5)), len(corpus) - 1)
    kind = chance.random()
    chosen = accepted.one() if kind < 0.3 else corpus[recent] if kind < 0.7 else chance.choice(corpus)

    def bytewise(piece: bytes) -> bytes:
        return _bytewise(piece, corpus, target.words, chance)

    for _ in range(chance.randint(1, 3)):
        chosen = mutated(target, chosen, chance, bytewise)
    return chosen[: target.max_bytes]


def _bytewise(piece: bytes, corpus: list[bytes], words: Sequence[bytes], chance: random.Random) -> bytes:
    data = bytearray(piece)
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(data))
        match chance.randrange(6):
            case 0:
                data[at:at] = chance.randbytes(1)
            case 1:
                data[at : at + 1] = chance.randbytes(1)
            case 2:
                del data[at : at + chance.randint(1, 8)]
            case 3:
                data[at:at] = chance.choice(words) if words else b"\xff"
            case 4:
                other = chance.choice(corpus)
                data[at:] = other[chance.randint(0, len(other)) :]
            case _:
                data[at : at + 1] = bytes([data[at] ^ 1 << chance.randrange(8)]) if at < len(data) else b"0"
    return bytes(data)


def main(target: Target, cpu_seconds: float, directory: Path, *, plant: bool) -> None:
    logging.disable()  # what a target says of bad input, thousands of times
    target = planted(target) if plant else target
    run = Run(target)

    def enough() -> bool:
        return run.cpu_seconds > cpu_seconds or (plant and run.found(Planted))

    corpus = fuzz(run, list(target.seeds), enough, random.Random())
    for data in corpus:
        (directory / "corpus" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    (directory / "result.json").write_text(run.as_json())


if __name__ == "__main__":
    main(load(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), plant="--planted" in sys.argv[4:])
