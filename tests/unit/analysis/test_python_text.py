"""What expressions stand for, as far as it can be told from literals."""

import ast

import pytest

from sandboxd.analysis.python_text import Texts
from sandboxd.analysis.report import Report
from sandboxd.finding import FindingCode

GIVEN = "known = 'k'\nwords = ['a', known]"


def texts(report: Report | None = None) -> Texts:
    made = Texts(report or Report())
    for node in ast.parse(GIVEN).body:
        assert isinstance(node, ast.Assign)
        made.give({target.id for target in node.targets if isinstance(target, ast.Name)}, node.value)
    return made


def expression(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body


@pytest.mark.parametrize(
    ("source", "whole", "shape"),
    [
        ("'a'", "a", "a"),
        ("b'a'", "a", "a"),
        ("known", "k", "k"),
        ("x", None, ""),
        ("1", None, ""),
        ("'a' + 'b' + known", "abk", "abk"),
        ("'a' + x + 'b'", None, "a${_}b"),
        ("f'a{known}b'", "akb", "akb"),
        ("f'a{x}b'", None, "a${_}b"),
        ("f'{known!r}'", None, ""),
        ("'-'.join(['a', 'b'])", "a-b", "a-b"),
        ("'-'.join(x)", None, ""),
        ("'%s-%s' % ('a', x)", None, "a-${_}"),
        ("'%s' % 'a'", "a", "a"),
        ("'%5d' % x", None, "%5d${_}"),
        ("'{}'.format('a')", "a", "a"),
        ("'{:>5}'.format('a')", None, "{:>5}${_}"),
        ("'cba'[::-1]", "abc", "abc"),
        ("'abc'[::2]", None, ""),
        ("os.path.join('a', x, 'b')", None, "a/${_}/b"),
        ("Path('a') / 'b'", "a/b", "a/b"),
        ("pathlib.Path('a', 'b').joinpath('c')", "a/b/c", "a/b/c"),
        ("os.path.expanduser('~/a')", "~/a", "~/a"),
        ("'a'.encode()", "a", "a"),
        ("'a'.replace('a', 'b')", None, ""),
    ],
)
def test_text_is_put_together_from_what_is_known(source: str, whole: str | None, shape: str) -> None:
    assert (texts().whole(expression(source)), texts().shape(expression(source))) == (whole, shape)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("['a', 'b']", ["a", "b"]),
        ("('a', x)", ["a", ""]),
        ("words", ["a", "k"]),
        ("['a'] + ['b']", ["a", "b"]),
        ("x", None),
        ("'a b'", None),
        ("'a b'.split()", ["a", "b"]),
        ("x.split()", None),
        ("shlex.split('a \"b c\"')", ["a", "b c"]),
        ("split('a \"b')", None),
    ],
)
def test_words_are_those_of_lists_and_of_what_is_split(source: str, words: list[str] | None) -> None:
    assert texts().words(expression(source)) == words


def test_a_name_means_the_first_text_that_it_is_given() -> None:
    made = texts()
    made.give({"known"}, expression("'other'"))
    assert made.whole(expression("known")) == "k"


def test_a_sum_of_any_length_is_read() -> None:
    assert texts().whole(expression(" + ".join(["'a'"] * 500))) == "a" * 500


def test_what_is_nested_beyond_measure_is_not_known() -> None:
    assert texts().whole(expression("(" * 40 + "'a'" + ").strip()" * 40)) is None


def test_texts_get_so_long_and_no_longer_and_there_are_so_many_of_them() -> None:
    report = Report()
    made = texts(report)
    made.give({"long"}, expression(repr("x" * 60_000)))
    assert made.whole(expression("long + long")) is None
    assert not report.found
    for _ in range(100):
        made.whole(expression("long + 'x'"))
    assert made.whole(expression("long + 'x'")) is None
    assert report.found == {(FindingCode.CUT, "text"): 0}
    assert made.whole(expression("long")) == "x" * 60_000
