"""Why a test may be skipped, as the only reasons there are: what is not among them is a failure in CI.

A reason opens with one of the prefixes, so that a list of skips can be read by what would mend them.
"""

import os
import shutil
from enum import StrEnum

import pytest

IN_CI = os.environ.get("CI") == "true"


class Lacks(StrEnum):
    """What this machine does not have. The value opens the reason of the skip."""

    ROOT = "needs root"
    KERNEL = "needs a kernel feature"  # which this kernel cannot have: no install step mends it
    PROGRAM = "needs a program"
    CONTROL = "control did not work"  # the attempt does nothing here even unconfined, so stopping it shows nothing


# What no install step on the machine could mend. Everything else must be there in CI.
IMPOSSIBLE_HERE = (Lacks.KERNEL, Lacks.CONTROL)


def because(lacks: Lacks, detail: str) -> str:
    return f"{lacks}: {detail}"


def allowed_in_ci(reason: str) -> bool:
    return reason.removeprefix("Skipped: ").startswith(IMPOSSIBLE_HERE)


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip(because(Lacks.ROOT, "run the tests as root to have this one"))


def need_program(name: str, package: str) -> str:
    """The program's path; skipped with its apt command where it is missing, which fails in CI."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(because(Lacks.PROGRAM, f"{name!r}; apt-get install {package}"))
    return path


def need_kernel(feature: str, *, present: bool) -> None:
    if not present:
        pytest.skip(because(Lacks.KERNEL, feature))
