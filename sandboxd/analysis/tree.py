"""Walks the trees of tree-sitter, in the order of the source and without recursion, however deep they are.

Called by `shell` and `javascript`.
"""

from collections.abc import Iterator

from tree_sitter import Node, Tree

from sandboxd.analysis.report import Report
from sandboxd.finding import Failure


def nodes(tree: Tree) -> Iterator[Node]:
    return (node for node, _ in nested(tree))


def nested(tree: Tree) -> Iterator[tuple[Node, int]]:
    """Each node with the place of its parent among those before it: -1 for the root, which has none."""
    cursor = tree.walk()
    above: list[int] = [-1]
    count = 0
    while True:
        if (node := cursor.node) is not None:
            yield node, above[-1]
        count += 1
        if cursor.goto_first_child():
            above.append(count - 1)
            continue
        if cursor.goto_next_sibling():
            continue
        while cursor.goto_parent():
            above.pop()
            if cursor.goto_next_sibling():
                break
        else:
            return


def text_of(node: Node) -> str:
    """As it is written."""
    return (node.text or b"").decode("utf-8", "replace")


def line_of(node: Node) -> int:
    return node.start_point.row + 1


def understood(tree: Tree, report: Report) -> bool:
    """Whether all of it was; what was not is skipped by the parser, and reported."""
    if not tree.root_node.has_error:
        return True
    broken = next((node for node in nodes(tree) if node.is_error or node.is_missing), tree.root_node)
    report.fail(Failure.SYNTAX, line_of(broken))
    return False
