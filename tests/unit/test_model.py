import pytest

from sandboxd.model import EnforcementRow, Guarantee, Isolation, RuntimeCapabilities, State

MEMORY = EnforcementRow(Guarantee.LIMIT_MEMORY, State.DEGRADED, ("rlimit",), "no cgroup")
CAPABILITIES = RuntimeCapabilities(Isolation.PROCESS, "root", (MEMORY,))


def test_row_that_was_probed_is_the_row() -> None:
    assert CAPABILITIES.row(Guarantee.LIMIT_MEMORY) is MEMORY


@pytest.mark.parametrize("guarantee", [guarantee for guarantee in Guarantee if guarantee is not MEMORY.guarantee])
def test_guarantee_that_was_not_probed_is_absent_with_a_reason(guarantee: Guarantee) -> None:
    row = CAPABILITIES.row(guarantee)
    assert (row.guarantee, row.state, row.layers) == (guarantee, State.ABSENT, ())
    assert row.reason
