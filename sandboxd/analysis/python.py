"""Reads Python by its syntax tree: what is imported, and which known functions are named, under whatever name.

A name counts wherever it stands, called or handed on. Scopes are not told apart: a name means all that it is given
anywhere in the source. Parses with this interpreter's own grammar. Only ever called in the worker.
"""

import ast
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence

from sandboxd.analysis import known
from sandboxd.analysis.commandline import PYTHON, SHELL, Code, code_in
from sandboxd.analysis.report import Report
from sandboxd.finding import Failure, FindingCode

_DEEPEST = 32  # of names and texts that are put together from parts
_LONGEST_NAME, _LONGEST_TEXT = 128, 65536
_MEANINGS = 16  # that one name may have
_ROUNDS = 3  # of following a name from one assignment to the next
_NAMESPACES = ("globals()", "locals()", "vars()", "__builtins__", "builtins.__dict__", "__builtins__.__dict__")
_INSIDES = frozenset({"__subclasses__", "__globals__", "__builtins__", "__mro__", "__code__", "__bases__"})
_LOADERS = frozenset({"__import__", "importlib.import_module", "importlib.__import__"})
_MODULES = frozenset(name.rpartition(".")[0] for name in (*known.PYTHON, *known.PYTHON_DECODES)) - {""}
# What a name that is worth following begins with.
_HEADS = {name.partition(".")[0] for name in (*known.PYTHON, *known.PYTHON_DECODES)} | {
    "sys", "builtins", "__builtins__", "getattr", "setattr", "delattr", "globals", "locals", "vars",
}  # fmt: skip

warnings.simplefilter("ignore")  # of the source's own, which nobody reads


def read(source: bytes, report: Report) -> bool:
    """Whether all of it was understood."""
    try:
        tree = ast.parse(source)
        _Reader(tree, report).run()
    except (SyntaxError, ValueError, LookupError, OSError) as error:  # the last two: of an encoding it does not have
        report.fail(Failure.SYNTAX, getattr(error, "lineno", 0) or 0)
        return False
    except (RecursionError, MemoryError):
        report.fail(Failure.TOO_DEEP)
        return False
    return True


class _Reader:
    def __init__(self, tree: ast.Module, report: Report) -> None:
        self._nodes = list(ast.walk(tree))
        self._report = report
        self._names: dict[str, set[str]] = defaultdict(set)
        self._texts: dict[str, str] = {}
        self._sources: dict[str, tuple[FindingCode, str]] = {}  # of names whose value was decoded or fetched
        self._stars: set[str] = set()

    def run(self) -> None:
        for node in self._nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._imports(node)
        assigned = list(self._assignments())
        for _ in range(_ROUNDS):
            for name, value in assigned:
                self._assigns(name, value)
        for node in self._nodes:
            self._look(node)

    # --- names

    def _imports(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._report.add(FindingCode.IMPORT, alias.name, node.lineno)
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                self._means(alias.asname or whole, whole)
            return
        module = "." * node.level + (node.module or "")
        self._report.add(FindingCode.IMPORT, module, node.lineno)
        for alias in node.names:
            if alias.name == "*" and module in _MODULES:
                self._stars.add(module)
            else:
                self._means(alias.asname or alias.name, f"{module}.{alias.name}")

    def _means(self, name: str, meaning: str) -> None:
        head = meaning.partition(".")[0].removesuffix("()")
        if head in _HEADS and len(meaning) <= _LONGEST_NAME and len(self._names[name]) < _MEANINGS:
            self._names[name].add(meaning.removeprefix("builtins."))

    def _assignments(self) -> Iterator[tuple[str, ast.expr]]:
        for node in self._nodes:
            match node:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        yield from _pairs(target, value)
                case (
                    ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value)
                ):
                    yield from _pairs(target, value)
                case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                    yield from _pairs(target, value)
                case _:
                    pass

    def _assigns(self, name: str, value: ast.expr) -> None:
        for meaning in self._resolved(value):
            self._means(name, meaning)
        if (text := self._text(value)) is not None:
            self._texts.setdefault(name, text)
        if (origin := self._origin([value])) is not None:
            self._sources.setdefault(name, origin)

    def _resolved(self, node: ast.expr, depth: int = 0) -> set[str]:
        """The dotted names that an expression may stand for."""
        if depth > _DEEPEST:
            return set()
        match node:
            case ast.Name(id=name):
                stars = {f"{module}.{name}" for module in self._stars}
                return (self._names.get(name) or ({name} if name in _HEADS else set())) | stars
            case ast.Attribute(value=value, attr=name):
                return {_joined(base, name) for base in self._resolved(value, depth + 1)}
            case ast.Call(func=function, args=arguments):
                return self._returned(function, arguments, depth + 1)
            case ast.Subscript(value=value, slice=key):
                taken = self._text(key)
                return set() if taken is None else self._taken(self._resolved(value, depth + 1), taken)
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                return self._resolved(value, depth + 1)
            case _:
                return set()

    def _returned(self, function: ast.expr, arguments: Sequence[ast.expr], depth: int) -> set[str]:
        names = self._resolved(function, depth)
        first = self._text(arguments[0]) if arguments else None
        if names & _LOADERS and first is not None:
            return {first.partition(".")[0] if "__import__" in names else first}
        if "getattr" in names and len(arguments) > 1:
            name = self._text(arguments[1])
            return set() if name is None else {_joined(base, name) for base in self._resolved(arguments[0], depth)}
        if "vars" in names and arguments:
            return {f"{base}.__dict__" for base in self._resolved(arguments[0], depth)}
        return {f"{name}()" for name in names}

    def _taken(self, bases: set[str], name: str) -> set[str]:
        """What `name` is in one of the dictionaries that hold names."""
        found = set()
        for base in bases:
            if base == "sys.modules":
                found.add(name)
            elif base in _NAMESPACES:
                found |= self._names.get(name) or {name}
            elif base.endswith(".__dict__"):
                found.add(_joined(base.removesuffix(".__dict__"), name))
        return found

    def _text(self, node: ast.AST, depth: int = 0) -> str | None:
        """The text that an expression is, if it is put together from literals."""
        if depth > _DEEPEST:
            return None
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.Constant(value=bytes(data)):
                return data.decode("latin-1")
            case ast.Name(id=name):
                return self._texts.get(name)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._concatenated([left, right], depth)
            case ast.JoinedStr(values=values):
                return self._concatenated(values, depth)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return self._text(value, depth + 1)
            case ast.Call(func=ast.Attribute(value=between, attr="join"), args=[ast.List() | ast.Tuple() as parts]):
                glue = self._text(between, depth + 1)
                texts = [self._text(part, depth + 1) for part in parts.elts]
                return None if glue is None else _together(texts, glue)
            case ast.Subscript(value=value, slice=ast.Slice(None, None, ast.UnaryOp(ast.USub(), ast.Constant(1)))):
                backwards = self._text(value, depth + 1)
                return None if backwards is None else backwards[::-1]
            case _:
                return None

    def _concatenated(self, parts: Sequence[ast.expr], depth: int) -> str | None:
        return _together([self._text(part, depth + 1) for part in parts], "")

    # --- what they do

    def _look(self, node: ast.AST) -> None:
        match node:
            case ast.Name() | ast.Attribute():
                self._named(node)
                if isinstance(node, ast.Attribute) and node.attr in _INSIDES:
                    self._report.add(FindingCode.CALL_DYNAMIC, node.attr, node.lineno)
            case ast.Subscript():
                self._named(node)
                self._taken_out(node)
            case ast.Call():
                self._named(node)  # as what it returns
                self._called(node)
            case ast.Constant(value=str() | bytes() as value):
                text = value if isinstance(value, str) else value.decode("latin-1")
                self._places(text, node.lineno)
            case ast.BinOp(op=ast.Add()):
                self._places(self._text(node) or "", node.lineno)
            case _:
                pass

    def _places(self, text: str, line: int) -> None:
        for place in known.credential_places(text):
            self._report.add(FindingCode.CREDENTIAL_PATH, place, line)

    def _named(self, node: ast.expr) -> None:
        for name in self._resolved(node):
            if (code := known.meaning(known.PYTHON, name)) is not None:
                self._report.add(code, name, node.lineno)

    def _taken_out(self, node: ast.Subscript) -> None:
        """`globals()[x]`, `vars(os)[x]`: only when the key cannot be read."""
        if isinstance(node.slice, ast.Slice) or self._text(node.slice) is not None:
            return
        for name in self._resolved(node.value):
            if name in _NAMESPACES or name == "sys.modules":
                self._report.add(FindingCode.CALL_DYNAMIC, name, node.lineno)
            elif name.endswith(".__dict__"):
                self._report.add(FindingCode.CALL_DYNAMIC, "__dict__", node.lineno)

    def _called(self, node: ast.Call) -> None:
        first = self._text(node.args[0]) if node.args else None
        for name in self._resolved(node.func):
            if name in _LOADERS and first is not None:
                self._report.add(FindingCode.IMPORT, first, node.lineno)
            if name in ("getattr", "setattr", "delattr") and len(node.args) > 1:
                self._looks_up(name, node.args[1])
            self._runs(name, node, first)

    def _looks_up(self, function: str, key: ast.expr) -> None:
        """A name that stands there as one literal is no more dynamic than an attribute."""
        if not isinstance(key, ast.Constant):
            self._report.add(FindingCode.CALL_DYNAMIC, function, key.lineno)

    def _runs(self, name: str, node: ast.Call, first: str | None) -> None:
        """Code that is handed to what runs it: where it came from, and the code itself if it is there."""
        code = known.meaning(known.PYTHON, name)
        runs_code = code in (FindingCode.EVAL_STRING, FindingCode.EVAL_OBJECT, FindingCode.PROCESS_START)
        if not runs_code:
            return
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if (origin := self._origin(arguments)) is not None:
            self._report.add(*origin, node.lineno)
        if code is FindingCode.EVAL_STRING and first is not None:
            self._report.embed(Code(PYTHON, first), node.lineno)
        if code is FindingCode.PROCESS_START and node.args:
            self._report.embed(self._handed(name, node, first), node.lineno)

    def _handed(self, name: str, node: ast.Call, first: str | None) -> Code | None:
        if first is not None:
            shell = any(keyword.arg == "shell" for keyword in node.keywords)
            return Code(SHELL, first) if shell or name in known.PYTHON_SHELLS else None
        command = node.args[0]
        parts = command.elts if isinstance(command, ast.List | ast.Tuple) else node.args
        words = [self._text(part) or "" for part in parts]
        return code_in(words) if words else None

    def _origin(self, values: Sequence[ast.expr]) -> tuple[FindingCode, str] | None:
        """Whether something in there is decoded or fetched: the finding that it makes of running it."""
        for value in values:
            for node in ast.walk(value):
                if isinstance(node, ast.Name) and node.id in self._sources:
                    return self._sources[node.id]
                if not isinstance(node, ast.Call):
                    continue
                for name in self._resolved(node.func):
                    if name in known.PYTHON_DECODES:
                        return FindingCode.EVAL_DECODED, name
                    if known.meaning(known.PYTHON, name) is FindingCode.SOCKET_OPEN:
                        return FindingCode.EVAL_DOWNLOADED, name
        return None


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they are given, also several at once."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        for inner, given in zip(target.elts, value.elts, strict=False):
            if isinstance(inner, ast.Name):
                yield inner.id, given


def _joined(base: str, name: str) -> str:
    return name if base in ("builtins", "__builtins__") else f"{base}.{name}"


def _together(texts: Sequence[str | None], glue: str) -> str | None:
    """None if one of them is not known, or if it gets too long."""
    whole = [text for text in texts if text is not None]
    known_and_bounded = len(whole) == len(texts) and sum(map(len, whole)) + len(glue) * len(whole) <= _LONGEST_TEXT
    return glue.join(whole) if known_and_bounded else None
