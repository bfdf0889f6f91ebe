"""The syntax of redaction's patterns, a part of RE2's, and the tree that is read from it. Called by `expression`.

What looks at the place where it stands has no meaning in text that comes in pieces, and is refused. It is over bytes.

    x  \\.  \\xHH  \\n \\r \\t \\f  \\d \\w \\s \\D \\W \\S  .  [a-z_]  [^a-z]  (x|y)  (?:x|y)
    x?  x*  x+  x{3}  x{1,64}  x{3,}  and (?i) at the very beginning
"""

import string
from dataclasses import dataclass

MAX_CHARS = 1024
_MAX_DEPTH = 16
ANY = frozenset(range(256))
_CLASSES = {
    "d": frozenset(string.digits.encode()),
    "w": frozenset((string.ascii_letters + string.digits + "_").encode()),
    "s": frozenset(b"\t\n\f\r "),
}
_CONTROL = {"n": 10, "r": 13, "t": 9, "f": 12}
_REPEATS: dict[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}
_PLACES = frozenset("AbBzZ^$")


class ExpressionInvalid(ValueError):
    """What is wrong, where, and what would mend it."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """One byte of these."""

    of: frozenset[int]


@dataclass(frozen=True, slots=True)
class Sequel:
    """One after the other; of no parts the empty text."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    of: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`most` None is without end."""

    what: "Node"
    least: int
    most: int | None


Node = Bytes | Sequel | Choice | Repeat


def read(text: str) -> Node:
    """`ExpressionInvalid` for what is not of this syntax."""
    if len(text) > MAX_CHARS:
        raise ExpressionInvalid(f"has {len(text)} characters; use at most {MAX_CHARS}")
    if odd := next((character for character in text if not " " <= character <= "~"), ""):
        raise ExpressionInvalid(f"holds {odd!r}; it is over bytes, so write such as \\xHH")
    return _Parser(text).whole()


def _is_count(text: str) -> bool:
    """As RE2 writes them: to it {01} is no repeat."""
    return text.isdecimal() and len(text) < 5 and (text == "0" or text[0] != "0")


class _Parser:
    """By recursive descent. `_at` is how many characters are read."""

    def __init__(self, text: str) -> None:
        self._any_case = text.startswith("(?i)")
        self._text = text
        self._at = 4 if self._any_case else 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._choice()
        if self._at < len(self._text):
            raise self._wrong("')' closes nothing; write \\)")
        return node

    def _choice(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._wrong(f"groups are nested deeper than {_MAX_DEPTH}")
        choices = [self._sequel()]
        while self._take("|"):
            choices.append(self._sequel())
        self._depth -= 1
        return choices[0] if len(choices) == 1 else Choice(tuple(choices))

    def _sequel(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeat(self._atom()))
        return Sequel(tuple(parts))

    def _repeat(self, what: Node) -> Node:
        match self._peek():
            case "{":
                least, most = self._counts()
            case symbol if symbol in _REPEATS:
                least, most = _REPEATS[symbol]
            case _:
                return what
        self._at += 1
        if self._peek() in ("?", "*", "+", "{"):
            raise self._wrong("a repeat of a repeat; a match is always the longest, so write one alone")
        return Repeat(what, least, most)

    def _counts(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        body = self._text[self._at + 1 : end] if end > 0 else ""
        low, comma, high = body.partition(",")
        if not (_is_count(low) and (not high or _is_count(high))):
            raise self._wrong("a repeat is {N}, {N,} or {N,M}; write a plain brace as \\{")
        self._at = end
        least, most = int(low), int(high) if high else None if comma else int(low)
        if most is not None and not 1 <= most >= least:
            raise self._wrong(f"a repeat from {least} to {most}; the second number is the larger, and not 0")
        return least, most

    def _atom(self) -> Node:
        character = self._next()
        match character:
            case "(":
                if self._take("?") and not self._take(":"):
                    raise self._wrong("of groups only (x) and (?:x) are known, and (?i) at the very beginning")
                node = self._choice()
                if not self._take(")"):
                    raise self._wrong("'(' is not closed")
                return node
            case "[":
                return Bytes(self._class())
            case ".":
                return Bytes(ANY - {10})
            case "\\":
                return Bytes(self._cased(self._escaped()))
            case "^" | "$":
                raise self._wrong(f"{character!r} is a place, and text comes in pieces; leave it out")
            case "?" | "*" | "+" | "{" | "}" | "]":
                raise self._wrong(f"{character!r} has nothing before it; write \\{character}")
            case _:
                return Bytes(self._cased(frozenset((ord(character),))))

    def _class(self) -> frozenset[int]:
        denied = self._take("^")
        members: set[int] = set()
        while not self._take("]"):
            low = self._member()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member()
                if len(low) != 1 or len(high) != 1 or min(low) > min(high):
                    raise self._wrong("a range of a class goes from one byte up to another")
                low = frozenset(range(min(low), min(high) + 1))
            members |= low
        members_cased = self._cased(frozenset(members))
        found = ANY - members_cased if denied else members_cased
        if not found:
            raise self._wrong("a class that holds no byte matches nothing")
        return found

    def _member(self) -> frozenset[int]:
        match self._next():
            case "":
                raise self._wrong("'[' is not closed")
            case "\\":
                return self._escaped()
            case "[" | "]" as bracket:
                raise self._wrong(f"{bracket!r} inside a class; write \\{bracket}")
            case character:
                return frozenset((ord(character),))

    def _escaped(self) -> frozenset[int]:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.lower() in _CLASSES:
            return ANY - _CLASSES[character.lower()]
        if character in _CONTROL:
            return frozenset((_CONTROL[character],))
        if character == "x":
            digits = self._next() + self._next()
            if len(digits) != 2 or not set(digits) <= set(string.hexdigits):
                raise self._wrong("\\x takes two hexadecimal digits")
            return frozenset((int(digits, 16),))
        if character in _PLACES and character.isalpha():
            raise self._wrong(f"'\\{character}' is a place, and text comes in pieces; leave it out")
        if not character or character.isalnum():
            raise self._wrong(
                f"'\\{character}' is not known; escape punctuation, or use \\d \\w \\s \\n \\r \\t \\f \\xHH"
            )
        return frozenset((ord(character),))

    def _cased(self, members: frozenset[int]) -> frozenset[int]:
        if not self._any_case:
            return members
        letters = bytes(members)
        return members | frozenset(letters.upper()) | frozenset(letters.lower())

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        self._at += len(character)
        return character

    def _take(self, character: str) -> bool:
        found = self._peek() == character
        self._at += found
        return found

    def _wrong(self, what: str) -> ExpressionInvalid:
        return ExpressionInvalid(f"at character {self._at}: {what}")
