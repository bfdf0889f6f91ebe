import random

from sandboxd.profile.bits import NOTHING, Bits

WORD_BUT_LOWEST = 0xFFFFFFFE
FOUR = 0xF  # the tests look at words of four bits, so that they can look at all of them


def test_what_is_known_decides_what_follows_from_it() -> None:
    even, odd = NOTHING.split(1, 0)
    assert even is not None
    assert odd is not None
    assert even.split(3, 1) == (None, even)
    assert odd.split(1, 1) == (odd, None)
    assert odd.example() is not None


def test_a_bit_that_cannot_be_one_thing_is_the_other() -> None:
    _, not_zero = Bits(mask=WORD_BUT_LOWEST, value=0).split(0xFFFFFFFF, 0)
    assert not_zero == Bits(mask=0xFFFFFFFF, value=1)


def test_a_word_of_which_every_value_is_excluded_has_no_example() -> None:
    left: Bits | None = Bits(mask=0xFFFFFFFC, value=0)
    for value in range(4):
        assert left is not None
        _, left = left.split(3, value)
    assert left is None or left.example() is None


def _holds(known: Bits, word: int) -> bool:
    return word & known.mask == known.value and all(word & mask != value for mask, value in known.excluded)


def test_any_row_of_comparisons_leaves_just_the_words_that_satisfy_it() -> None:
    """Checked on all words of four bits. Control: some rows leave none without that being plain on the way."""
    luck = random.Random(1)
    empty = 0
    for _ in range(3000):
        known = Bits(mask=~FOUR & 0xFFFFFFFF, value=0)
        left = set(range(16))
        for _ in range(luck.randrange(40)):
            mask = luck.randrange(16)
            value = luck.randrange(16) & mask
            equal, other = known.split(mask, value)
            with_it = {word for word in left if word & mask == value}
            side, words = (equal, with_it) if luck.random() < 0.02 else (other, left - with_it)
            if side is None:
                assert words == set()
                break
            known, left = side, words
            assert {word for word in range(16) if _holds(known, word)} == left
        example = known.example()
        assert example in left if left else example is None
        empty += not left
    assert empty > 30
