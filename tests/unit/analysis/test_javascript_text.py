"""What expressions stand for, as far as it can be told from literals."""

import pytest
from tree_sitter import Node

from sandboxd.analysis import javascript
from sandboxd.analysis.javascript_text import Texts
from sandboxd.analysis.report import Report
from sandboxd.finding import FindingCode


def texts(report: Report | None = None) -> Texts:
    made = Texts(report or Report())
    made.give("known", expression("'k'"))
    made.give("words", expression("['a', known]"))
    return made


def expression(source: str) -> Node:
    return (
        javascript._PARSER.parse(f"({source})".encode()).root_node.named_children[0].named_children[0].named_children[0]
    )


@pytest.mark.parametrize(
    ("source", "whole", "shape"),
    [
        ("'a'", "a", "a"),
        ("''", "", ""),
        ("`a`", "a", "a"),
        ("known", "k", "k"),
        ("x", None, ""),
        ("1", None, ""),
        ("'a' + /* c */ 'b' + known", "abk", "abk"),
        ("'a' + x + 'b'", None, "a${_}b"),
        ("2 - 'a'", None, ""),
        ("`a${known}b`", "akb", "akb"),
        ("`a${x}b`", None, "a${_}b"),
        ("'\\x61\\u0062\\u{63}'", "abc", "abc"),
        ("['a', 'b'].join('-')", "a-b", "a-b"),
        ("path.join('a', x, 'b')", None, "a/${_}/b"),
        ("(await 'a').trim()", "a", "a"),
        ("'a'.replace('a', 'b')", None, ""),
    ],
)
def test_text_is_put_together_from_what_is_known(source: str, whole: str | None, shape: str) -> None:
    made = texts()
    assert made.shape(expression(source)) == shape
    assert made.whole(expression(source)) == whole


@pytest.mark.parametrize(
    ("source", "words"), [("['a', 'b']", ["a", "b"]), ("['a', x]", ["a", ""]), ("words", ["a", "k"]), ("x", [])]
)
def test_words_are_those_of_lists(source: str, words: list[str]) -> None:
    assert texts().words(expression(source)) == words


def test_a_sum_of_any_length_is_read() -> None:
    assert texts().whole(expression(" + ".join(["'a'"] * 5000))) == "a" * 5000


def test_texts_get_so_long_and_no_longer_and_there_are_so_many_of_them() -> None:
    report = Report()
    made = texts(report)
    made.give("long", expression(repr("x" * 60_000)))
    assert made.whole(expression("long + long")) is None
    assert not report.found
    for _ in range(100):
        made.whole(expression("long + 'x'"))
    assert made.whole(expression("long + 'x'")) is None
    assert report.found == {(FindingCode.CUT, "text"): 0}
    assert made.whole(expression("long")) == "x" * 60_000
