"""Whoever comes first may have more than a part, and never another's."""

from hypothesis import given
from hypothesis import strategies as st

from sandboxd.rpc.share import Shares

ALICE, BOB, CAROL = 1, 2, 3


def taken(shares: Shares, uid: int, most: int = 1000) -> int:
    """How many places it can take in a row."""
    count = 0
    while count < most and shares.fits(uid):
        shares.take(uid)
        count += 1
    return count


def test_one_alone_has_every_place() -> None:
    assert taken(Shares(10, frozenset({ALICE})), ALICE) == 10


def test_greedy_one_leaves_the_others_their_parts() -> None:
    shares = Shares(12, frozenset({ALICE, BOB, CAROL}))
    assert taken(shares, ALICE) == 8
    assert (taken(shares, BOB), taken(shares, CAROL), taken(shares, ALICE)) == (2, 2, 0)


def test_place_given_back_is_free_for_anybody_whose_it_may_be() -> None:
    shares = Shares(8, frozenset({ALICE, BOB}))
    assert (taken(shares, ALICE), taken(shares, BOB)) == (6, 2)
    assert shares.over(ALICE)
    assert not shares.over(BOB)
    shares.give_back(BOB)
    assert not shares.fits(ALICE)
    assert shares.fits(BOB)
    shares.give_back(ALICE)
    assert shares.fits(ALICE)


@given(st.lists(st.tuples(st.sampled_from((ALICE, BOB, CAROL)), st.booleans()), max_size=200), st.integers(6, 40))
def test_whatever_happened_nobody_is_below_his_part_without_a_place(steps: list[tuple[int, bool]], total: int) -> None:
    shares, held = Shares(total, frozenset({ALICE, BOB, CAROL})), dict.fromkeys((ALICE, BOB, CAROL), 0)
    for uid, comes in steps:
        if comes and shares.fits(uid):
            shares.take(uid)
            held[uid] += 1
        elif not comes and held[uid]:
            shares.give_back(uid)
            held[uid] -= 1
        assert sum(held.values()) <= total
        assert all(shares.fits(one) for one in held if held[one] < total // 6)
