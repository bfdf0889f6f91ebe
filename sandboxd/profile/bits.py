"""What is known of a 32-bit word after comparisons of some of its bits: some bits themselves, and what it is not.

Pure values. Exact: a word is said to be possible only if `example` has one. Used by `walk` and `proof`.
"""

from dataclasses import dataclass

from sandboxd.profile.rules import WORD

_GARBAGE = 0xA5A5_5A5A
_Excluded = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Bits:
    """Words with `word & mask == value`, and for each of `excluded`, a pair of the same kind, `!=`."""

    mask: int = 0
    value: int = 0
    excluded: _Excluded = ()

    def split(self, mask: int, value: int) -> "tuple[Bits | None, Bits | None]":
        """Of these words, those with `word & mask == value` and those without; None where it is plain that none are."""
        if (self.value ^ value) & self.mask & mask or (mask, value) in self.excluded:
            return None, self
        if not mask & ~self.mask:
            return self, None
        with_it = _settled(self.mask | mask, self.value | value, self.excluded)
        return with_it, _settled(self.mask, self.value, (*self.excluded, (mask, value)))

    def example(self) -> int | None:
        """One of the words; None if there is none after all."""
        if not self.excluded:
            return self.value | _GARBAGE & ~self.mask
        mask, value = self.excluded[0]
        free = mask & ~self.mask
        while free:  # a word that is not `value` under this mask differs from it in one of these bits
            bit = free & -free
            free ^= bit
            differing, _ = self.split(bit, ~value & bit)
            if differing is not None and (found := differing.example()) is not None:
                return found
        return None


NOTHING = Bits()


def _settled(mask: int, value: int, excluded: _Excluded) -> Bits | None:
    """Without what can no longer happen, and with the bits that follow; None if nothing is left."""
    left = []
    learnt = False
    for pair in excluded:
        under, other = pair
        if (value ^ other) & mask & under:
            continue
        free = under & ~mask
        if not free:
            return None
        if free & (free - 1):
            left.append(pair)
        else:  # all others are as in what it is not, so the last one is the opposite
            mask |= free
            value |= ~other & free
            learnt = True
    return _settled(mask, value, tuple(left)) if learnt else Bits(mask, value & WORD, tuple(left))
