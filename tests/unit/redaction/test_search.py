from sandboxd.redaction.patterns import Source, compiled
from sandboxd.redaction.search import Search, Span


def search(pattern: str, max_bytes: int = 8, until: str = "") -> Search:
    return Search(compiled("ours", Source(pattern, max_bytes, until)))


def test_a_match_is_told_once_nothing_longer_can_come_of_it() -> None:
    one = search("ab{1,2}")
    assert one.advance(b"xab", 0, last=False) == []
    assert one.decided == 1
    assert one.advance(b"abb", 1, last=False) == [Span(1, 4, opens=True)]
    assert one.decided == 4


def test_what_is_undecided_is_decided_at_the_end() -> None:
    one = search("ab{1,2}")
    assert one.advance(b"xab", 0, last=True) == [Span(1, 3, opens=True)]
    assert one.decided == 3


def test_an_earlier_beginning_keeps_a_later_match_back() -> None:
    one = search("ab{3}c|b")
    assert one.advance(b"abb", 0, last=False) == []
    assert one.decided == 0
    assert one.advance(b"abbx", 0, last=False) == [Span(1, 2, opens=True), Span(2, 3, opens=True)]


def test_a_match_that_goes_on_is_told_in_pieces_and_opens_once() -> None:
    one = search("ab+")
    assert one.advance(b"xab", 0, last=False) == [Span(1, 3, opens=True), Span(3, 3, opens=False)]
    assert one.inside
    assert one.advance(b"bb", 3, last=False) == [Span(3, 5, opens=False)]
    assert one.advance(b"b.", 5, last=False) == [Span(5, 6, opens=False)]
    assert not one.inside


def test_a_block_ends_with_its_closing_and_the_search_goes_on_behind_it() -> None:
    one = search("<", until=">", max_bytes=8)
    spans = one.advance(b"a<b>c<d", 0, last=False)
    assert spans == [Span(1, 2, opens=True), Span(2, 4, opens=False), Span(5, 6, opens=True), Span(6, 7, opens=False)]
    assert one.inside


def test_a_block_that_is_not_closed_ends_at_its_bound() -> None:
    one = search("<", until=">", max_bytes=4)
    assert one.advance(b"<bcdefg", 0, last=False) == [Span(0, 1, opens=True), Span(1, 4, opens=False)]
    assert not one.inside


def test_what_its_caller_knows_to_be_decided_is_not_looked_at_again() -> None:
    one = search("ab")
    assert one.advance(b"xab", 100, last=False) == [Span(101, 103, opens=True)]
    assert one.decided == 103
