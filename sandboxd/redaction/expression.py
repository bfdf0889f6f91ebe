"""One expression of redaction, of which it is known how far a match can reach, in the words of RE2.

A part without a bound is refused, but as the very last one, and of single bytes: nothing needs to be held back to see
that such a match goes on. RE2 is handed what was understood of an expression, never the text it was read from. Pure;
called by `patterns`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sandboxd.redaction.syntax import ANY, Bytes, Choice, ExpressionInvalid, Node, Repeat, Sequel, read

# Bytes that all repeats together come to: what one byte of hostile text can cost, at worst, grows with it.
MAX_POSITIONS = 512


@dataclass(frozen=True, slots=True)
class Expression:
    """`node` matches `shortest` to `longest` bytes; behind them a match goes on while bytes are in `goes_on`.

    `positions` is what it costs: all bytes that it names, repeats written out.
    """

    node: Node
    shortest: int
    longest: int
    positions: int
    goes_on: frozenset[int]

    @property
    def re2(self) -> bytes:
        """Of `node` alone."""
        return _written(self.node)

    @property
    def re2_begun(self) -> bytes:
        """Each text that can still become a match, or a longer one; also the empty text."""
        return _begun(self.node) or b""

    @property
    def re2_over(self) -> bytes:
        """The first byte with which a match goes on no more."""
        return _written(Bytes(ANY - self.goes_on))


def parse(text: str) -> Expression:
    """`ExpressionInvalid` for what is not of this syntax, matches nothing at all, or is too large."""
    core, goes_on = _split(_flat(read(text)))
    shortest, longest = _lengths(core)
    if longest > MAX_POSITIONS:
        raise ExpressionInvalid(f"can match {longest} bytes; bound its repeats to at most {MAX_POSITIONS} together")
    if (positions := _positions(core)) > MAX_POSITIONS:
        raise ExpressionInvalid(f"comes to {positions} bytes with its repeats; make it at most {MAX_POSITIONS}")
    if shortest == 0:
        raise ExpressionInvalid("matches the empty text, so it would be found everywhere; demand a byte")
    if goes_on == ANY:
        raise ExpressionInvalid("goes on over any byte, so to the end of everything; say which bytes it goes on over")
    return Expression(core, shortest, longest, positions, goes_on)


# --- what is known of one


def _flat(node: Node) -> Node:
    """Without sequels in sequels, so that a last part is seen where it is in a group of its own."""
    match node:
        case Sequel():
            parts: list[Node] = []
            for part in map(_flat, node.parts):
                parts.extend(part.parts if isinstance(part, Sequel) else (part,))
            return Sequel(tuple(parts))
        case _:
            return node


def _split(node: Node) -> tuple[Node, frozenset[int]]:
    """What must be there, and the bytes over which it then goes on."""
    parts = node.parts if isinstance(node, Sequel) else (node,)
    match parts:
        case (*before, Repeat(Bytes(of), least, None)):
            return Sequel((*before, *((Repeat(Bytes(of), least, least),) if least else ()))), of
        case _:
            return node, frozenset()


def _lengths(node: Node) -> tuple[int, int]:
    match node:
        case Bytes():
            return 1, 1
        case Sequel(parts):
            lengths = [_lengths(part) for part in parts]
            return sum(low for low, _ in lengths), sum(high for _, high in lengths)
        case Choice(of):
            lengths = [_lengths(one) for one in of]
            return min(low for low, _ in lengths), max(high for _, high in lengths)
        case Repeat(_, _, None):
            raise ExpressionInvalid(
                "a repeat without end can only be the very last part, and of single bytes; bound it: {0,64}"
            )
        case Repeat(what, least, most):
            low, high = _lengths(what)
            return low * least, high * (most or 0)


def _positions(node: Node) -> int:
    match node:
        case Bytes():
            return 1
        case Sequel(parts) | Choice(parts):
            return sum(map(_positions, parts))
        case Repeat(what, _, most):
            return _positions(what) * (most or 0)


# --- in the words of RE2


def _written(node: Node) -> bytes:
    match node:
        case Bytes(of):
            return _class(of)
        case Sequel(parts):
            return b"".join(map(_written, parts))
        case Choice(of):
            return b"(?:%b)" % b"|".join(map(_written, of))
        case Repeat(what, least, most):
            return _repeated(what, least, most or 0)


def _class(of: frozenset[int]) -> bytes:
    ranges: list[list[int]] = []
    for byte in sorted(of):
        if ranges and ranges[-1][1] == byte - 1:
            ranges[-1][1] = byte
        else:
            ranges.append([byte, byte])
    return b"[%b]" % b"".join(b"\\x%02x-\\x%02x" % (low, high) for low, high in ranges)


def _repeated(what: Node, least: int, most: int) -> bytes:
    return b"(?:%b){%d,%d}" % (_written(what), least, most)


def _begun(node: Node) -> bytes | None:
    """What matches each text that is a beginning of a match and less than all of it; None if there is none."""
    match node:
        case Bytes():
            return b""
        case Sequel(parts):
            return _begun_sequel(parts)
        case Choice(of):
            begun = [one for one in map(_begun, of) if one is not None]
            return b"(?:%b)" % b"|".join(begun) if begun else None
        case Repeat(what, _, most):
            last = _begun(what)
            return None if last is None or not most else _repeated(what, 0, most - 1) + last


def _begun_sequel(parts: Sequence[Node]) -> bytes | None:
    """Begun within the first part; or that one, and begun within the rest."""
    found: bytes | None = None
    for part in reversed(parts):
        inside = _begun(part)
        after = None if found is None else _written(part) + found
        choices = [one for one in (inside, after) if one is not None]
        found = b"(?:%b)" % b"|".join(choices) if choices else None
    return found
