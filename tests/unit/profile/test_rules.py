from itertools import product

import pytest

from sandboxd.profile.rules import ANY, Match, both, holds, one_of


def test_bits_outside_of_the_mask_do_not_matter() -> None:
    (rule,) = one_of(0, [5])
    assert holds([rule], [0xFFFF_FFFF_0000_0005])
    assert not holds([rule], [4])


def test_no_alternative_holds_for_nothing_and_the_empty_rule_for_all() -> None:
    assert not holds([], [0])
    assert holds([ANY], [123])


def test_contradicting_values_leave_no_alternative() -> None:
    assert both(one_of(0, [1]), one_of(0, [2])) == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (one_of(0, [1, 2, 3]), one_of(0, [2, 3, 4])),
        (one_of(0, [0, 2], mask=2), one_of(0, [1], mask=1)),
        (one_of(0, [1]), one_of(1, [0, 3])),
        ((ANY,), one_of(1, [1])),
        (((Match(0, 3, 1), Match(1, 1, 0)),), one_of(0, [5, 6], mask=7)),
    ],
)
def test_both_holds_exactly_where_each_side_does(first: tuple, second: tuple) -> None:  # type: ignore[type-arg]
    merged = both(first, second)
    for args in product(range(8), range(8)):
        assert holds(merged, args) == (holds(first, args) and holds(second, args))
