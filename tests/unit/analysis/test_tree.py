import tree_sitter_bash
from tree_sitter import Language, Parser

from sandboxd.analysis.report import Report
from sandboxd.analysis.tree import line_of, nodes, text_of, understood
from sandboxd.finding import FindingCode

PARSER = Parser(Language(tree_sitter_bash.language()))


def test_every_node_comes_once_in_the_order_of_the_source() -> None:
    words = [text_of(node) for node in nodes(PARSER.parse(b"a b\nc d $(e f)")) if node.type == "word"]
    assert words == list("abcdef")


def test_a_node_knows_its_line() -> None:
    (last,) = (node for node in nodes(PARSER.parse(b"a\nb\nc")) if text_of(node) == "c" and node.type == "word")
    assert line_of(last) == 3


def test_a_deep_tree_is_walked_without_recursion() -> None:
    depth = 20_000
    assert sum(1 for _ in nodes(PARSER.parse(b"(" * depth + b"a" + b")" * depth))) > depth


def test_what_the_parser_skipped_is_reported_with_its_line() -> None:
    report = Report()
    assert not understood(PARSER.parse(b"a\nif [\n"), report)
    assert list(report.found) == [(FindingCode.FAILED, "syntax")]
    assert understood(PARSER.parse(b"a\n"), Report())
