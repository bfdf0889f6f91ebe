"""The tests of the sandbox itself on a second, older kernel with cgroup v2: Debian's Linux 6.1 under emulation.

Run by `make test-vm`. What that kernel cannot enforce stands in the enforcement report, and those tests say so.
"""

import os
import shlex

import pytest

from tests.skips import need_program, need_root
from tests.vm import machine

pytestmark = pytest.mark.vm

# Each start of a daemon takes a minute or two there, so of the suites that start one per test only a few tests run.
SUITES = (
    "tests/posture",
    *(f"tests/integration/test_limits_{name}.py" for name in ("time", "memory", "files", "output")),
    *(f"tests/contract/runtime/test_contract.py::test_{name}" for name in ("usage_counts_what_ran", "oom_is_told")),
    "tests/integration/test_cleanup_leaks.py::test_a12_client_that_leaves_takes_its_execution_with_it",
    "tests/integration/test_cleanup_kill.py::test_r23_daemon_killed_with_20_living_sandboxes",
)
TIMEOUT_SECONDS = 20 * 60.0


def test_sandbox_holds_on_linux_6_1_with_cgroup_v2() -> None:
    need_root()
    need_program("qemu-system-x86_64", "qemu-system-x86")
    need_program("debootstrap", "debootstrap")
    need_program("mke2fs", "e2fsprogs")
    arguments = shlex.split(os.environ.get("VM_PYTEST_ARGS", "")) or [
        *SUITES,
        "-q",
        "--durations=10",
        "-k",
        "not subuid",
    ]

    run = machine.run_pytest(arguments, TIMEOUT_SECONDS)

    assert run.facts is not None, f"the machine did not come up:\n{run.console[-4000:]}"
    assert run.facts.kernel.startswith("6.1.")
    assert run.facts.landlock_abi == 2
    assert {"cpu", "io", "memory", "pids"} <= set(run.facts.cgroup_controllers)
    assert run.status is not None, f"pytest did not end within {TIMEOUT_SECONDS} s:\n{run.console[-4000:]}"
    assert run.status == 0, "pytest failed in the machine; its output is above"
