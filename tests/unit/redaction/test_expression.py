import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.redaction.expression import MAX_POSITIONS, parse
from sandboxd.redaction.syntax import ExpressionInvalid

LETTERS = b"ab"
WORDS = [bytes(word) for length in range(7) for word in itertools.product(LETTERS, repeat=length)]
ATOMS = st.sampled_from(["a", "b", "[ab]", "[^a]", "."])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda choices: f"({'|'.join(choices)})"),
        st.tuples(inner, st.sampled_from(["?", "{2}", "{1,2}", "{0,3}"])).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    ),
    max_leaves=5,
)


@given(EXPRESSIONS)
def test_what_was_understood_matches_what_was_written(text: str) -> None:
    try:
        expression = parse(text)
    except ExpressionInvalid as error:
        assert "matches the empty text" in str(error)
        return
    written = re.compile(text.encode())
    understood = re.compile(expression.re2)
    lengths = [len(word) for word in WORDS if written.fullmatch(word)]
    assert lengths == [len(word) for word in WORDS if understood.fullmatch(word)]
    assert not lengths or expression.shortest == min(lengths)
    assert all(length <= expression.longest for length in lengths)


@given(EXPRESSIONS)
def test_beginnings_are_what_more_bytes_make_a_match_of(text: str) -> None:
    try:
        expression = parse(text)
    except ExpressionInvalid:
        return
    if expression.longest > 6:
        return
    matches = [word for word in WORDS if re.fullmatch(text.encode(), word)]
    beginnings = {match[:end] for match in matches for end in range(len(match))}
    begun = re.compile(expression.re2_begun)
    assert {word for word in WORDS if begun.fullmatch(word)} == beginnings


@pytest.mark.parametrize(
    ("text", "shortest", "longest", "goes_on"),
    [
        ("ab{2,5}", 3, 6, b""),
        ("x[ab]+", 2, 2, b"ab"),
        ("x[ab]*", 1, 1, b"ab"),
        ("x[ab]{3,}", 4, 4, b"ab"),
        ("x([ab]+)", 2, 2, b"ab"),
        ("a+", 1, 1, b"a"),
    ],
)
def test_lengths_and_what_a_match_goes_on_with(text: str, shortest: int, longest: int, goes_on: bytes) -> None:
    expression = parse(text)
    assert (expression.shortest, expression.longest) == (shortest, longest)
    assert expression.goes_on == frozenset(goes_on)


def test_first_byte_beyond_a_match_that_goes_on() -> None:
    over = re.compile(parse("x[ab]+").re2_over)
    assert [byte for byte in b"abxc\n" if over.fullmatch(bytes((byte,)))] == list(b"xc\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a+b", "a repeat without end can only be the very last part"),
        ("(a+|b)", "a repeat without end can only be the very last part"),
        ("(a+){2}", "a repeat without end can only be the very last part"),
        ("x(?:ab)+", "and of single bytes"),
        ("a?", "matches the empty text"),
        ("[ab]*", "matches the empty text"),
        ("", "matches the empty text"),
        ("(a|)", "matches the empty text"),
        (f"a{{{MAX_POSITIONS + 1}}}", f"can match {MAX_POSITIONS + 1} bytes"),
        ("((a{32}){32}){32}", "can match 32768 bytes"),
        (f"(a{{{MAX_POSITIONS}}}|b{{2}})", f"comes to {MAX_POSITIONS + 2} bytes with its repeats"),
        (r"x[\x00-\xff]+", "goes on over any byte"),
    ],
)
def test_what_has_no_bound_or_is_found_everywhere_is_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        parse(text)
    assert message in str(caught.value)
