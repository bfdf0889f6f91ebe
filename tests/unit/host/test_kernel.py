import os

import pytest

from sandboxd.host import kernel


@pytest.mark.parametrize(
    ("release", "version", "tested"),
    [
        ("6.1.0-28-cloud-amd64", (6, 1), True),
        ("6.18.44", (6, 18), True),
        ("6.2.0", (6, 2), False),
        ("5.15.153.1-microsoft-standard-WSL2", (5, 15), False),
        ("custom", (0, 0), False),
    ],
)
def test_version_is_read_from_the_release(release: str, version: tuple[int, int], tested: bool) -> None:
    found = kernel.Kernel(release, "x86_64")
    assert (found.version, found.tested) == (version, tested)


def test_running_kernel_is_this_one() -> None:
    assert (kernel.running().release, kernel.running().machine) == (os.uname().release, os.uname().machine)
