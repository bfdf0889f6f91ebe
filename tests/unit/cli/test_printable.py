"""What reaches a terminal of text that others wrote."""

import pytest

from sandboxd.cli.printable import printable


def test_what_steers_a_terminal_is_written_out() -> None:
    assert printable("a\x1b[31m\n\u2028\u202eb é") == "a\\x1b[31m\\n\\u2028\\u202eb é"


@pytest.mark.parametrize(
    "unseen",
    ["\u200b", "\u00ad", "\u034f", "\u115f", "\u2800", "\u3164", "\ufe0f", "\uffa0", "\U000e0101", "\U000e0041"],
)
def test_what_hides_is_written_out(unseen: str) -> None:
    assert printable(f"a{unseen}b") == f"a{unseen.encode('unicode_escape').decode()}b"


def test_words_of_other_languages_stay_as_they_are() -> None:
    assert printable("naïve Größe 日本語 한국어 עברית") == "naïve Größe 日本語 한국어 עברית"
