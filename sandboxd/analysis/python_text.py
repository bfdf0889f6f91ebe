"""What text or words a Python expression stands for, as far as it is put together from literals.

Never runs anything of the source, and builds no more than so much text. Called by `python`.
"""

import ast
import shlex
from collections.abc import Iterable, Sequence

from sandboxd.analysis.parts import Builder, Parts
from sandboxd.analysis.report import Report

_DEEPEST = 32
_UNCHANGING = frozenset({"encode", "decode", "strip", "lstrip", "rstrip", "expanduser", "resolve", "absolute"})
_PATHS = frozenset({"Path", "PurePath", "PosixPath"})


class Texts:
    """With what names were given, anywhere in the source: the first text or list counts."""

    def __init__(self, report: Report) -> None:
        self._given: dict[str, str] = {}
        self._lists: dict[str, ast.expr] = {}
        self._builder = Builder(report)

    def give(self, names: Iterable[str], value: ast.expr) -> None:
        text = self.whole(value)
        for name in names:
            if text is not None:
                self._given.setdefault(name, text)
            elif isinstance(value, ast.List | ast.Tuple):
                self._lists.setdefault(name, value)

    def whole(self, node: ast.AST) -> str | None:
        """None if any of it is not known."""
        return self._builder.whole(self._parts(node))

    def shape(self, node: ast.AST) -> str:
        """With UNKNOWN for what is not known; empty if nothing is."""
        return self._builder.shape(self._parts(node))

    def words(self, node: ast.expr) -> list[str] | None:
        """Of a list of texts, each as `shape` gives it, or of what is split into one."""
        match node:
            case ast.Name(id=name) if name in self._lists:
                return self._each(self._lists[name])
            case ast.List() | ast.Tuple():
                return self._each(node)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return (self._each(left) or []) + (self._each(right) or []) or None
            case ast.Call(func=ast.Attribute(value=text, attr="split"), args=[]):
                return (self.whole(text) or "").split() or None
            case ast.Call(func=ast.Attribute(attr="split") | ast.Name(id="split"), args=[text]):
                return _split(self.whole(text) or "")
            case _:
                return None

    def _each(self, node: ast.expr) -> list[str] | None:
        return [self.shape(part) for part in node.elts] if isinstance(node, ast.List | ast.Tuple) else None

    def _parts(self, node: ast.AST, depth: int = 0) -> Parts:
        if depth > _DEEPEST:
            return [None]
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.Constant(value=bytes(data)):
                return [data.decode("latin-1")]
            case ast.Name(id=name):
                return [self._given.get(name)]
            case ast.BinOp(op=ast.Add()):
                return self._joined(_summands(node), "", depth)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._joined([left, right], "/", depth)
            case ast.BinOp(left=left, op=ast.Mod(), right=right):
                filled = right.elts if isinstance(right, ast.Tuple) else [right]
                return self._filled(left, "%s", filled, depth)
            case ast.JoinedStr(values=values):
                return self._joined(values, "", depth)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return self._parts(value, depth + 1)
            case ast.Call(func=ast.Attribute(value=base, attr=method), args=arguments):
                return self._method(base, method, arguments, depth)
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in _PATHS and arguments:
                return self._joined(arguments, "/", depth)
            case ast.Subscript(value=value, slice=ast.Slice(None, None, ast.UnaryOp(ast.USub(), ast.Constant(1)))):
                backwards = self._builder.whole(self._parts(value, depth + 1))
                return [None if backwards is None else backwards[::-1]]
            case _:
                return [None]

    def _method(self, base: ast.expr, method: str, arguments: list[ast.expr], depth: int) -> Parts:
        match method, arguments:
            case "join", [ast.List() | ast.Tuple() as several]:
                glue = self._builder.whole(self._parts(base, depth + 1))
                return [None] if glue is None else self._joined(several.elts, glue, depth)
            case (("join" | "joinpath"), [_, *_]):
                above = [base] if method == "joinpath" else []
                return self._joined([*above, *arguments], "/", depth)
            case "expanduser", [path]:
                return self._parts(path, depth + 1)
            case "format", [_, *_]:
                return self._filled(base, "{}", arguments, depth)
            case name, [_, *_] if name in _PATHS:
                return self._joined(arguments, "/", depth)
            case name, [] if name in _UNCHANGING:
                return self._parts(base, depth + 1)
            case _:
                return [None]

    def _joined(self, values: Sequence[ast.expr], glue: str, depth: int) -> Parts:
        parts: Parts = []
        for value in values:
            if glue and parts:
                parts.append(glue)
            parts += self._parts(value, depth + 1)
        return parts

    def _filled(self, form: ast.expr, place: str, values: Sequence[ast.expr], depth: int) -> Parts:
        """A text with places for others; what is in them is not known if they are not told apart easily."""
        text = self._builder.whole(self._parts(form, depth + 1))
        if text is None:
            return [None]
        between = text.split(place)
        if len(between) != len(values) + 1:
            return [text, None]
        parts: Parts = [between[0]]
        for value, after in zip(values, between[1:], strict=True):
            parts += [*self._parts(value, depth + 1), after]
        return parts


def _summands(node: ast.expr) -> list[ast.expr]:
    """Of `a + b + c`, which may be very long: its tree is as deep."""
    found = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        found.append(node.right)
        node = node.left
    return [node, *reversed(found)]


def _split(text: str) -> list[str] | None:
    try:
        return shlex.split(text) or None
    except ValueError:  # a quotation that does not end
        return None
