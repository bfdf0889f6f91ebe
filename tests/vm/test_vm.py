"""The tests of the sandbox itself on a second, older kernel with cgroup v2: Debian's Linux 6.1 under emulation.

Run by `make test-vm`. What that kernel cannot enforce stands in the enforcement report, and those tests say so.
"""

import os
import shlex

import pytest

from tests.skips import IN_CI, need_program, need_root
from tests.vm import machine

pytestmark = pytest.mark.vm

SUITES = (
    "tests/posture",
    "tests/contract/runtime",
    *(f"tests/integration/test_limits_{name}.py" for name in ("time", "memory", "files", "output", "io")),
    *(f"tests/integration/test_cleanup_{name}.py" for name in ("leaks", "kill")),
    # Calls that the kernel hands over: an exec that policy denies, and a refusal on record.
    "tests/escape/test_mediated_exec.py::test_what_policy_denies_runs_by_no_route[root-by_thread]",
    "tests/escape/test_mediated_exec.py::test_u07_reported_call_leaves_one_event_with_its_layer[root]",
)
# A launch takes most of a second there and the start of a daemon twenty, so in CI that is left out which depends least
# on the kernel: subordinate ids but for their posture; of the spawner's kills all but one step, as each takes a daemon
# two starts; rootless, the other kills, the journal after one and the drain, which repeat those of the root daemon;
# and the two tests of hundreds of launches.
LEFT_OUT_IN_CI = (
    "(subuid and not posture)",
    "(killed_spawner and not root-running)",
    "(rootless and (killed_anywhere or r23 or journal or drain))",
    "200_launches",
    "more_than_the_slots",
)
TIMEOUT_SECONDS = (35 if IN_CI else 120) * 60.0


def test_sandbox_holds_on_linux_6_1_with_cgroup_v2() -> None:
    need_root()
    need_program("qemu-system-x86_64", "qemu-system-x86")
    need_program("debootstrap", "debootstrap")
    need_program("mke2fs", "e2fsprogs")
    chosen = ["-k", f"not ({' or '.join(LEFT_OUT_IN_CI)})"] if IN_CI else []
    arguments = shlex.split(os.environ.get("VM_PYTEST_ARGS", "")) or [*SUITES, *chosen, "-q", "--durations=15"]

    run = machine.run_pytest(arguments, TIMEOUT_SECONDS)

    assert run.facts is not None, f"the machine did not come up:\n{run.console[-4000:]}"
    assert run.facts.kernel.startswith("6.1.")
    assert run.facts.landlock_abi == 2
    assert {"cpu", "io", "memory", "pids"} <= set(run.facts.cgroup_controllers)
    assert run.status is not None, f"pytest did not end within {TIMEOUT_SECONDS} s:\n{run.console[-4000:]}"
    assert run.status == 0, "pytest failed in the machine; its output is above"
