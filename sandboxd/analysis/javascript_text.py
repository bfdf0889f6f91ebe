"""What text or words a JavaScript expression stands for, as far as it is put together from literals.

Never runs anything of the source, and builds no more than so much text. Called by `javascript`.
"""

from collections.abc import Iterator, Sequence

from tree_sitter import Node

from sandboxd.analysis.parts import Builder, Parts
from sandboxd.analysis.report import Report
from sandboxd.analysis.tree import text_of

TRANSPARENT = frozenset({"parenthesized_expression", "await_expression"})
_DEEPEST = 32
_UNCHANGING = frozenset({"toString", "trim", "valueOf", "normalize"})


class Texts:
    """With what names were given, anywhere in the source: the first text or list counts."""

    def __init__(self, report: Report) -> None:
        self._given: dict[str, str] = {}
        self._lists: dict[str, Node] = {}
        self._builder = Builder(report)

    def give(self, name: str, value: Node) -> None:
        if (text := self.whole(value)) is not None:
            self._given.setdefault(name, text)
        elif value.type == "array":
            self._lists.setdefault(name, value)

    def whole(self, node: Node | None) -> str | None:
        """None if any of it is not known."""
        return None if node is None else self._builder.whole(self._parts(node))

    def shape(self, node: Node | None) -> str:
        """With UNKNOWN for what is not known; empty if nothing is."""
        return "" if node is None else self._builder.shape(self._parts(node))

    def words(self, node: Node | None) -> list[str]:
        """Of a list of texts, each as `shape` gives it."""
        if node is not None and node.type == "identifier":
            node = self._lists.get(text_of(node))
        if node is None or node.type != "array":
            return []
        return [self.shape(part) for part in without_comments(node)]

    def _parts(self, node: Node, depth: int = 0) -> Parts:
        if depth > _DEEPEST:
            return [None]
        match node.type:
            case "string" | "template_string":
                return self._joined(node.named_children, "", depth)
            case "string_fragment":
                return [text_of(node)]
            case "escape_sequence":
                return [escaped(text_of(node))]
            case "identifier":
                return [self._given.get(text_of(node))]
            case "binary_expression":
                summands = _summands(node)
                return [None] if summands is None else self._joined(summands, "", depth)
            case "call_expression":
                return self._called(node, depth)
            case kind if kind in TRANSPARENT or kind == "template_substitution":
                return self._joined(list(without_comments(node))[:1], "", depth)
            case _:
                return [None]

    def _called(self, node: Node, depth: int) -> Parts:
        """`["a", "b"].join("")`, `path.join(x, ".ssh")`, `text.trim()`."""
        function, given = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if function is None or given is None or function.type != "member_expression" or given.type != "arguments":
            return [None]
        base, method = function.child_by_field_name("object"), function.child_by_field_name("property")
        arguments = list(without_comments(given))
        match text_of(method or node) if base is not None and method is not None else "", arguments:
            case "join", [glue] if base is not None and base.type == "array":
                between = self._builder.whole(self._parts(glue, depth + 1))
                parts = list(without_comments(base))
                return [None] if between is None else self._joined(parts, between, depth)
            case (("join" | "resolve"), [_, *_]):
                return self._joined(arguments, "/", depth)
            case name, [] if name in _UNCHANGING and base is not None:
                return self._parts(base, depth + 1)
            case _:
                return [None]

    def _joined(self, nodes: Sequence[Node], glue: str, depth: int) -> Parts:
        parts: Parts = []
        for node in nodes:
            if glue and parts:
                parts.append(glue)
            parts += self._parts(node, depth + 1)
        return parts


def without_comments(node: Node) -> Iterator[Node]:
    return (child for child in node.named_children if child.type != "comment")


def _summands(node: Node) -> list[Node] | None:
    """Of `a + b + c`, which may be very long: its tree is as deep. None for another operation."""
    found: list[Node] = []
    at: Node | None = node
    while at is not None and at.type == "binary_expression":
        operator, right = at.child_by_field_name("operator"), at.child_by_field_name("right")
        if operator is None or operator.type != "+" or right is None:
            if not found:
                return None
            break
        found.append(right)
        at = at.child_by_field_name("left")
    return [*([] if at is None else [at]), *reversed(found)]


def escaped(text: str) -> str | None:
    """`\\x65` and its like; None if it does not decode."""
    if text.startswith("\\u{"):
        text = "\\U" + text[3:].removesuffix("}").rjust(8, "0")
    try:
        return text.encode("latin-1", "ignore").decode("unicode_escape")
    except UnicodeDecodeError:
        return None
