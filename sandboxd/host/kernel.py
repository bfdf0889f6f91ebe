"""Which kernel this is, for reports and messages. Never decides what works: the spawner's probe tries that.

Called by `check`.
"""

import os
import re
from dataclasses import dataclass

TESTED = ((6, 1), (6, 18))  # the support matrix of the README


@dataclass(frozen=True, slots=True)
class Kernel:
    release: str
    machine: str

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor; (0, 0) for a release string that tells neither."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def tested(self) -> bool:
        """Whether the suites run on this version; in between and beyond, the probe speaks for itself."""
        return self.version in TESTED


def running() -> Kernel:
    name = os.uname()
    return Kernel(name.release, name.machine)
