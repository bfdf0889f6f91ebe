"""What went wrong during a run: each kind once, with the input that showed it first.

Must never hide anything: what is not an allowed exception is recorded, whatever it is. Used by both drivers.
"""

import json
import time
import traceback
from dataclasses import asdict, dataclass
from types import TracebackType

from bench.soak.target import Target

SLOW_SECONDS = 5.0  # of CPU, for a few kilobytes


@dataclass(slots=True)
class Crash:
    """`where` is the innermost line of this repository; `count` is how many inputs ended there."""

    kind: str
    where: str
    message: str
    data: str  # hexadecimal
    count: int = 1


class Run:
    """One fuzzing run: counts executions and keeps crashes. `with run.one(data): target.run(data)`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.executions = 0
        self.slowest_seconds = 0.0
        self.crashes: dict[tuple[str, str], Crash] = {}
        self.begun = time.process_time()
        self._data = b""
        self._since = 0.0

    def found(self, bug: type[Exception]) -> bool:
        return any(kind == bug.__name__ for kind, _ in self.crashes)

    @property
    def cpu_seconds(self) -> float:
        return time.process_time() - self.begun

    def one(self, data: bytes) -> "Run":
        self._data = data
        self._since = time.process_time()
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        self.executions += 1
        seconds = time.process_time() - self._since
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if seconds > SLOW_SECONDS:
            self._crashed("Slow", self.target.name, f"{seconds:.1f} s for {len(self._data)} bytes")
        if error is None or isinstance(error, self.target.allowed):
            return True
        if not isinstance(error, Exception):
            return False
        self._crashed(type(error).__name__, _innermost(error), str(error)[:200])
        return True

    def _crashed(self, kind: str, where: str, message: str) -> None:
        known = self.crashes.get((kind, where))
        if known is not None:
            known.count += 1
            return
        self.crashes[kind, where] = Crash(kind, where, message, self._data.hex())

    def as_json(self) -> str:
        return json.dumps(
            {
                "executions": self.executions,
                "cpu_seconds": self.cpu_seconds,
                "slowest_seconds": self.slowest_seconds,
                "crashes": [asdict(crash) for crash in self.crashes.values()],
            }
        )


def _innermost(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/sandboxd/" in frame.filename or "/bench/" in frame.filename]
    frame = ours[-1] if ours else frames[-1]
    return f"{'/'.join(frame.filename.rsplit('/', 3)[-3:])}:{frame.lineno}"
