import math
from dataclasses import fields

import pytest

from sandboxd.model import Limits
from sandboxd.profile import limits
from tests.unit.profile.profiles import profile


def test_the_table_names_every_limit_there_is() -> None:
    assert list(limits.RULES) == [field.name for field in fields(Limits)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("memry", 1),
            ("pids", 1.5),
            ("pids", 0),
            ("wall_seconds", math.nan),
            ("wall_seconds", math.inf),
            ("pids", -3),
        ),
        *(("memory_bytes", 1 << 63), ("wall_seconds", 1e300), ("pids", 10**400)),
    ],
)
def test_values_no_limit_can_have_are_refused(name: str, value: float) -> None:
    with pytest.raises(limits.BadLimit):
        limits.checked(name, value)


def test_zero_is_no_limit_only_where_it_turns_one_off() -> None:
    assert limits.checked("idle_seconds", 0) == 0
    assert limits.looser("idle_seconds", 0, 5)
    assert not limits.looser("idle_seconds", 5, 0)
    assert not limits.looser("stdout_bytes", 0, 5)


def test_replaced_counts_are_whole_numbers() -> None:
    changed = limits.with_values(profile().limits, [("pids", 5.0), ("wall_seconds", 2)])
    assert (changed.pids, type(changed.pids), changed.wall_seconds) == (5, int, 2.0)
    assert limits.get(changed, "pids") == 5
