"""Reads Python by its syntax tree: what is imported, and which known functions are named, under whatever name.

A name counts wherever it stands, called or handed on. Scopes are not told apart: a name means all that it is given
anywhere in the source. Parses with this interpreter's own grammar. Only ever called in the worker.
"""

import ast
import builtins
import warnings
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sandboxd.analysis import known
from sandboxd.analysis.commandline import PYTHON, SHELL, Code, code_in
from sandboxd.analysis.parts import UNKNOWN
from sandboxd.analysis.python_text import Texts
from sandboxd.analysis.report import Report
from sandboxd.finding import Failure, FindingCode

_DEEPEST = 32  # of names that are put together from parts
_LONGEST_NAME = 128
_MEANINGS = 16  # that one name may have
_ROUNDS = 3  # of following a name from one assignment to the next
_LONGEST_TRACE = 8  # from one name to the next, of where text comes from
_NAMESPACES = ("globals()", "locals()", "vars()", "__builtins__", "__dict__")  # the last: of the module builtins
_INSIDES = frozenset({"__subclasses__", "__globals__", "__builtins__", "__mro__", "__code__", "__bases__"})
_LOADERS = frozenset({"__import__", "importlib.import_module", "importlib.__import__"})
_MODULES = frozenset(name.rpartition(".")[0] for name in (*known.PYTHON, *known.PYTHON_DECODES)) - {""}
_IN_MODULES: dict[str, set[str]] = defaultdict(set)  # the modules from which a name that is imported by `*` may come
for _known in (*known.PYTHON, *known.PYTHON_DECODES):
    _words = _known.split(".")
    for _end in range(1, len(_words)):
        _IN_MODULES[_words[_end]].add(".".join(_words[:_end]))
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
        self._parents = _parents(tree)  # of all nodes, outer ones before what is in them
        self._report = report
        self._names: dict[str, set[str]] = defaultdict(set)
        self._texts = Texts(report)
        self._stars: set[str] = set()
        self._searched: set[str] = set()  # texts, for places
        self._own = _own_names(tree, self._parents)
        self._known: dict[ast.expr, set[str]] = {}  # as far as names were followed when it was looked at
        self._origins: dict[ast.AST, _Origin] = {}

    def run(self) -> None:
        for node in self._parents:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._imports(node)
        assigned: dict[ast.expr, set[str]] = defaultdict(set)
        for name, value in self._assignments():
            assigned[value].add(name)
        for _ in range(_ROUNDS):
            self._known.clear()
            for value, names in assigned.items():
                self._assigns(names, value)
        self._known.clear()
        self._origins = self._traced(assigned)
        for node in self._parents:
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
        for node in self._parents:
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
                case ast.For(target=target, iter=several) | ast.comprehension(target=target, iter=several):
                    for value in several.elts if isinstance(several, ast.List | ast.Tuple) else [several]:
                        yield from _pairs(target, value)
                case _:
                    pass

    def _assigns(self, names: Iterable[str], value: ast.expr) -> None:
        for meaning in self._resolved(value):
            for name in names:
                self._means(name, meaning)
        self._texts.give(names, value)

    def _resolved(self, node: ast.expr, depth: int = 0) -> set[str]:
        """The dotted names that an expression may stand for."""
        if depth > _DEEPEST:
            return set()
        if (known_already := self._known.get(node)) is None:
            known_already = self._known[node] = self._resolved_anew(node, depth)
        return known_already

    def _resolved_anew(self, node: ast.expr, depth: int) -> set[str]:
        match node:
            case ast.Name(id=name, lineno=line):
                stars = {f"{module}.{name}" for module in self._stars & _IN_MODULES.get(name, set())}
                itself = {name} if name in _HEADS and line <= self._own.get(name, line) else set()
                return (self._names.get(name) or itself) | stars
            case ast.Attribute(value=value, attr=name):
                return {_joined(base, name) for base in self._resolved(value, depth + 1)}
            case ast.Call(func=function, args=arguments):
                return self._returned(function, arguments, depth + 1)
            case ast.Subscript(value=value, slice=key):
                taken = self._texts.whole(key)
                return set() if taken is None else self._taken(self._resolved(value, depth + 1), taken)
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                return self._resolved(value, depth + 1)
            case ast.IfExp(body=first, orelse=second) | ast.BoolOp(values=[first, second]):
                return self._resolved(first, depth + 1) | self._resolved(second, depth + 1)
            case _:
                return set()

    def _returned(self, function: ast.expr, arguments: Sequence[ast.expr], depth: int) -> set[str]:
        first = self._texts.whole(arguments[0]) if arguments else None
        if isinstance(function, ast.Attribute) and function.attr in ("get", "__getattribute__") and first is not None:
            bases = self._resolved(function.value, depth)
            return self._taken(bases, first) if function.attr == "get" else {_joined(base, first) for base in bases}
        names = self._resolved(function, depth)
        if names & _LOADERS and first is not None:
            return {first.partition(".")[0] if "__import__" in names else first}
        if "getattr" in names and len(arguments) > 1:
            name = self._texts.whole(arguments[1])
            return set() if name is None else {_joined(base, name) for base in self._resolved(arguments[0], depth)}
        if "vars" in names and arguments:
            return {_joined(base, "__dict__") for base in self._resolved(arguments[0], depth)}
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
                self._places(self._texts.shape(node), node.lineno)
            case ast.Constant(value=str() | bytes() as value):
                text = value if isinstance(value, str) else value.decode("latin-1")
                self._places(text, node.lineno)
            case ast.BinOp() | ast.JoinedStr() if not isinstance(self._parents[node], ast.BinOp):
                self._places(self._texts.shape(node), node.lineno)
            case _:
                pass

    def _places(self, text: str, line: int) -> None:
        if text in self._searched:
            return
        self._searched.add(text)
        for place in known.credential_places(text):
            self._report.add(FindingCode.CREDENTIAL_PATH, place, line)

    def _named(self, node: ast.expr) -> None:
        for name in self._resolved(node):
            if (code := known.meaning(known.PYTHON, name)) is not None:
                self._report.add(code, name, node.lineno)

    def _taken_out(self, node: ast.Subscript) -> None:
        """`globals()[x]`, `vars(os)[x]`: only when the key cannot be read."""
        if isinstance(node.slice, ast.Slice) or self._texts.whole(node.slice) is not None:
            return
        for name in self._resolved(node.value):
            if name in _NAMESPACES or name == "sys.modules":
                self._report.add(FindingCode.CALL_DYNAMIC, name, node.lineno)
            elif name.endswith(".__dict__"):
                self._report.add(FindingCode.CALL_DYNAMIC, "__dict__", node.lineno)

    def _called(self, node: ast.Call) -> None:
        first = self._texts.whole(node.args[0]) if node.args else None
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
        if code is FindingCode.PROCESS_START:
            self._report.embed(self._handed(name, node), node.lineno)

    def _handed(self, name: str, node: ast.Call) -> Code | None:
        """The source in the command line of a process."""
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        arguments = list(node.args) or [named[word] for word in ("args", "cmd", "command") if word in named]
        if name.startswith("os.spawn"):
            arguments = arguments[1:]  # after how it is waited for
        if not arguments:
            return None
        listed = self._texts.words(arguments[0])
        if name in known.PYTHON_SHELLS or not _is_false(named.get("shell")):
            line = listed[0] if listed else self._texts.shape(arguments[0])
            return Code(SHELL, line, partial=UNKNOWN in line) if line else None
        if name.startswith(("os.exec", "os.spawn", "os.posix_spawn", "posix.")):
            told = self._texts.words(arguments[1]) if len(arguments) > 1 else None
            words = told or [self._texts.shape(part) for part in arguments[1:]]
            words = [self._texts.shape(arguments[0]), *words[1:]]  # the first is but a name for it
        else:
            words = listed or [self._texts.shape(part) for part in arguments]
        code = code_in(words)
        return None if code is None else replace(code, partial=UNKNOWN in code.text)

    # --- where text comes from

    def _origin(self, values: Iterable[ast.expr]) -> "_Origin | None":
        """Whether something in there is decoded or fetched: the finding that it makes of running it."""
        return next((self._origins[value] for value in values if value in self._origins), None)

    def _traced(self, assigned: dict[ast.expr, set[str]]) -> "dict[ast.AST, _Origin]":
        """The origin of each node that has one, in or below it. Names have that of what they are given."""
        direct = {node: origin for node in self._parents if (origin := self._own_origin(node)) is not None}
        names: dict[str, _Origin] = {}
        found: dict[ast.AST, _Origin] = {}
        for _ in range(_LONGEST_TRACE):
            found = {}
            for node in reversed(self._parents):  # what is inside comes before what it is in
                by_name = names.get(node.id) if isinstance(node, ast.Name) else None
                if (origin := direct.get(node) or by_name or found.get(node)) is not None:
                    found[node] = found[self._parents[node]] = origin
            given = {name: found[value] for value, targets in assigned.items() if value in found for name in targets}
            if len(given) == len(names):
                break
            names = given
        return found

    def _own_origin(self, node: ast.AST) -> "_Origin | None":
        called = node.func if isinstance(node, ast.Call) else node
        if not isinstance(called, ast.Name | ast.Attribute):
            return None
        for name in self._resolved(called):
            if name in known.PYTHON_DECODES:
                return FindingCode.EVAL_DECODED, name
            if called is not node and known.meaning(known.PYTHON, name) is FindingCode.SOCKET_OPEN:
                return FindingCode.EVAL_DOWNLOADED, name
        return None


_Origin = tuple[FindingCode, str]


def _parents(tree: ast.Module) -> dict[ast.AST, ast.AST]:
    """Each node with the one that it is in, breadth first."""
    found: dict[ast.AST, ast.AST] = {}
    waiting: deque[ast.AST] = deque((tree,))
    while waiting:
        outer = waiting.popleft()
        for node in ast.iter_child_nodes(outer):
            if not isinstance(node, ast.expr_context | ast.operator | ast.boolop | ast.unaryop | ast.cmpop):
                found[node] = outer  # the others are one object each, wherever they stand
                waiting.append(node)
    return found


def _own_names(tree: ast.Module, nodes: Iterable[ast.AST]) -> dict[str, int]:
    """Names of built-in functions that the module itself gives another meaning, and from which line on."""
    own: dict[str, int] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                own.setdefault(name, node.lineno)
            case ast.ImportFrom(names=aliases):
                own.update((alias.asname or alias.name, node.lineno) for alias in aliases)
            case _:
                pass
    deleted = {
        target.id
        for node in nodes
        if isinstance(node, ast.Delete)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {name: line for name, line in own.items() if hasattr(builtins, name) and name not in deleted}


def _is_false(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and not value.value)


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
