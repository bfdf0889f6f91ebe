"""Reads JavaScript by its syntax tree: which modules are loaded, and which known functions are named, under any name.

A name counts wherever it stands, called or handed on, and means all that it is given anywhere in the source. TypeScript
is not understood. Only ever called in the worker.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import tree_sitter_javascript
from tree_sitter import Language, Node, Parser

from sandboxd.analysis import known
from sandboxd.analysis.commandline import JAVASCRIPT, SHELL, Code, code_in
from sandboxd.analysis.javascript_text import TRANSPARENT, Texts, escaped, without_comments
from sandboxd.analysis.parts import UNKNOWN
from sandboxd.analysis.report import Report
from sandboxd.analysis.tree import line_of, nested, text_of, understood
from sandboxd.finding import FindingCode

_ESCAPE = re.compile(r"\\u(?:[0-9a-fA-F]{4}|\{[0-9a-fA-F]+\})")
_PARSER = Parser(Language(tree_sitter_javascript.language()))
_DEEPEST, _MEANINGS, _ROUNDS = 32, 16, 3
_LONGEST_NAME = 128
_LONGEST_TRACE = 8  # from one name to the next, of where text comes from
_GLOBALS = frozenset({"globalThis", "global", "window", "self"})
_LOADERS = frozenset({"require", "import", "module.require", "process.mainModule.require", "process.getBuiltinModule",
                      "module._load", "module.createRequire()"})  # fmt: skip
_HEADS = (
    {name.partition(".")[0] for name in (*known.JAVASCRIPT, *known.JAVASCRIPT_DECODES)}
    | _GLOBALS
    | known.JAVASCRIPT_TIMERS
    | {"require", "module", "process", "Buffer", "import"}
)
# What is there without being loaded: `got` or `ws` may be anything.
_GLOBAL_HEADS = _HEADS - known.JAVASCRIPT_PACKAGES
_READ = frozenset({"import_statement", "export_statement", "variable_declarator", "assignment_expression", "identifier",
                   "member_expression", "subscript_expression", "call_expression", "new_expression", "string",
                   "template_string", "binary_expression", "for_in_statement"})  # fmt: skip


def read(source: bytes, report: Report) -> bool:
    """Whether all of it was understood."""
    tree = _PARSER.parse(source)
    _Reader(list(nested(tree)), report).run()
    return understood(tree, report)


class _Reader:
    def __init__(self, found: Sequence[tuple[Node, int]], report: Report) -> None:
        """`found` has the place of each node's parent."""
        self._found = found
        self._nodes = [
            (kind, node)
            for node, parent in found
            if (kind := node.type) in _READ and not (kind == "binary_expression" and _operator(found[parent][0]) == "+")
        ]  # of a sum, which may be very long, the whole
        self._report = report
        self._names: dict[str, set[str]] = defaultdict(set)
        self._texts = Texts(report)
        self._there = _GLOBAL_HEADS - _own_names(found[0][0])
        self._known: dict[int, set[str]] = {}  # by node, as far as names were followed when it was looked at
        self._origins: dict[int, _Origin] = {}  # by node
        self._searched: set[str] = set()  # texts, for places

    def run(self) -> None:
        assigned: list[tuple[Node | None, Node | None]] = []
        for kind, node in self._nodes:
            match kind:
                case "import_statement" | "export_statement":
                    self._imports(node)
                case "variable_declarator":
                    assigned.append((node.child_by_field_name("name"), node.child_by_field_name("value")))
                case "assignment_expression" | "for_in_statement":
                    assigned.append((node.child_by_field_name("left"), node.child_by_field_name("right")))
                case "call_expression":
                    assigned += _awaited(node)
                case _:
                    pass
        both = [(target, value) for target, value in assigned if target is not None and value is not None]
        for _ in range(_ROUNDS):
            self._known.clear()
            for target, value in both:
                self._assigns(target, value)
        self._known.clear()
        self._origins = self._traced([(_name(target), value) for target, value in both if target.type == "identifier"])
        for kind, node in self._nodes:
            self._look(kind, node)

    # --- names

    def _imports(self, node: Node) -> None:
        source = node.child_by_field_name("source")
        if source is None:
            return
        module = _module(self._texts.whole(source) or "")
        self._report.add(FindingCode.IMPORT, module, line_of(node))
        for clause in node.named_children:
            if clause.type == "import_clause":
                self._clause(clause, module)

    def _clause(self, clause: Node, module: str) -> None:
        for part in clause.named_children:
            match part.type:
                case "identifier":
                    self._means(_name(part), module)
                case "namespace_import":
                    self._means(_name(part.named_children[0]), module)
                case "named_imports":
                    for specifier in part.named_children:
                        if (name := specifier.child_by_field_name("name")) is not None:
                            alias = specifier.child_by_field_name("alias") or name
                            self._means(_name(alias), f"{module}.{_name(name)}")
                case _:
                    pass

    def _means(self, name: str, meaning: str) -> None:
        head = meaning.partition(".")[0].removesuffix("()")
        if head in _HEADS and len(meaning) <= _LONGEST_NAME and len(self._names[name]) < _MEANINGS:
            self._names[name].add(meaning)

    def _assigns(self, target: Node, value: Node) -> None:
        if target.type == "object_pattern":
            for part in target.named_children:
                self._taken_apart(part, value)
        if target.type != "identifier":
            return
        name = _name(target)
        for meaning in self._resolved(value):
            self._means(name, meaning)
        self._texts.give(name, value)

    def _taken_apart(self, part: Node, value: Node) -> None:
        """`const {exec: run = x, ...rest} = …`"""
        key, target = part, part
        if part.type == "pair_pattern":
            key, target = (part.child_by_field_name("key") or part, part.child_by_field_name("value") or part)
        if target.type in ("object_assignment_pattern", "assignment_pattern"):
            target = target.child_by_field_name("left") or target
            key = target if key is part else key
        name = self._texts.whole(key.named_children[0]) if key.type == "computed_property_name" else _name(key)
        for base in self._resolved(value):
            if part.type == "rest_pattern":
                self._means(_name(part.named_children[0]), base)
            elif name is not None:
                self._means(_name(target), _joined(base, name))

    def _resolved(self, node: Node | None, depth: int = 0) -> set[str]:
        """The dotted names that an expression may stand for."""
        if node is None or depth > _DEEPEST:
            return set()
        if (known_already := self._known.get(node.id)) is None:
            known_already = self._known[node.id] = self._resolved_anew(node, depth)
        return known_already

    def _resolved_anew(self, node: Node, depth: int) -> set[str]:
        match node.type:
            case "identifier" | "import" | "shorthand_property_identifier":
                name = _name(node)
                return self._names.get(name) or ({name} if name in self._there else set())
            case "member_expression":
                name = _name(node.child_by_field_name("property") or node)
                return {_joined(base, name) for base in self._resolved(node.child_by_field_name("object"), depth + 1)}
            case "subscript_expression":
                key = self._texts.whole(node.child_by_field_name("index"))
                bases = self._resolved(node.child_by_field_name("object"), depth + 1)
                return set() if key is None else {_joined(base, key) for base in bases}
            case "call_expression" | "new_expression":
                return self._returned(node, depth + 1)
            case "sequence_expression":
                return self._resolved(node.named_children[-1], depth + 1)
            case "assignment_expression":
                return self._resolved(node.child_by_field_name("right"), depth + 1)
            case "ternary_expression":
                both = (node.child_by_field_name("consequence"), node.child_by_field_name("alternative"))
                return set().union(*(self._resolved(side, depth + 1) for side in both))
            case "binary_expression" if _operator(node) in ("||", "&&", "??"):
                both = (node.child_by_field_name("left"), node.child_by_field_name("right"))
                return set().union(*(self._resolved(side, depth + 1) for side in both))
            case "array" if len(node.named_children) == 1:
                return self._resolved(node.named_children[0], depth + 1)  # of `for (const x of [y])`
            case kind if kind in TRANSPARENT:
                return self._resolved(next(without_comments(node), None), depth + 1)
            case _:
                return set()

    def _returned(self, node: Node, depth: int) -> set[str]:
        names = self._resolved(_callee(node), depth)
        first = self._texts.whole(_first(node))
        if names & _LOADERS and first is not None:
            return {_module(first)}
        return {f"{name}()" for name in names}

    # --- what they do

    def _look(self, kind: str, node: Node) -> None:
        match kind:
            case "identifier":
                self._named(node)
            case "member_expression":
                self._named(node)
                self._constructs(node)
            case "subscript_expression":
                self._named(node)
                self._constructs(node)
                if self._texts.whole(node.child_by_field_name("index")) is None:
                    self._taken_out(node)
            case "call_expression" | "new_expression":
                self._named(node)
                self._called(node)
                self._places(node)
            case "string" | "template_string" | "binary_expression":
                self._places(node)
            case _:
                pass

    def _constructs(self, node: Node) -> None:
        """`x.constructor`, of which two make a function out of text."""
        if self._is_constructor(node) and self._is_constructor(node.child_by_field_name("object")):
            self._report.add(FindingCode.CALL_DYNAMIC, "constructor", line_of(node))

    def _is_constructor(self, node: Node | None) -> bool:
        if node is None or node.type not in ("member_expression", "subscript_expression"):
            return False
        if node.type == "member_expression":
            return _name(node.child_by_field_name("property") or node) == "constructor"
        return self._texts.whole(node.child_by_field_name("index")) == "constructor"

    def _places(self, node: Node) -> None:
        text = self._texts.shape(node)
        if text in self._searched:
            return
        self._searched.add(text)
        for place in known.credential_places(text):
            self._report.add(FindingCode.CREDENTIAL_PATH, place, line_of(node))

    def _named(self, node: Node) -> None:
        for name in self._resolved(node):
            if (code := known.meaning(known.JAVASCRIPT, name)) is not None:
                self._report.add(code, name, line_of(node))

    def _taken_out(self, node: Node) -> None:
        """`globalThis[x]`, `require("child_process")[x]`: only when the key cannot be read."""
        for name in self._resolved(node.child_by_field_name("object")):
            if name in _GLOBALS or name in ("process", "child_process", "vm", "module"):
                self._report.add(FindingCode.CALL_DYNAMIC, name, line_of(node))

    def _called(self, node: Node) -> None:
        line = line_of(node)
        callee, first = _callee(node), self._texts.whole(_first(node))
        if node.type == "call_expression" and first is not None and self._is_constructor(callee):
            self._report.add(FindingCode.CALL_DYNAMIC, "constructor", line)
        for name in self._resolved(callee):
            if name in _LOADERS:
                if first is None:
                    self._report.add(FindingCode.IMPORT_DYNAMIC, name.removesuffix("()"), line)
                else:
                    self._report.add(FindingCode.IMPORT, _module(first), line)
            elif name in known.JAVASCRIPT_TIMERS and (first is not None or self._has_origin(node)):
                self._report.add(FindingCode.EVAL_STRING, name, line)
                self._runs(node, Code(JAVASCRIPT, first or ""))
            elif (code := known.meaning(known.JAVASCRIPT, name)) is FindingCode.EVAL_STRING:
                self._runs(node, Code(JAVASCRIPT, first or ""))
            elif code is FindingCode.PROCESS_START:
                self._runs(node, self._handed(name, node, first))
            elif code is FindingCode.EVAL_OBJECT:
                self._runs(node, None)

    def _runs(self, node: Node, code: Code | None) -> None:
        """Code that is handed to what runs it: where it came from, and the code itself if it is there."""
        arguments = node.child_by_field_name("arguments")
        if arguments is not None and (origin := self._origins.get(arguments.id)) is not None:
            self._report.add(*origin, line_of(node))
        self._report.embed(code, line_of(node))

    def _handed(self, name: str, node: Node, first: str | None) -> Code | None:
        """The source in the command line of a process."""
        given = node.child_by_field_name("arguments")
        _, *rest = list(without_comments(given)) if given is not None and given.named_children else [None]
        if name in known.JAVASCRIPT_SHELLS or any(self._asks_for_a_shell(option) for option in rest):
            line = self._texts.shape(_first(node))
            return Code(SHELL, line, partial=UNKNOWN in line)
        code = None if first is None else code_in([first, *self._texts.words(rest[0] if rest else None)])
        return None if code is None else replace(code, partial=UNKNOWN in code.text)

    def _asks_for_a_shell(self, option: Node | None) -> bool:
        """`{shell: true}`"""
        if option is None or option.type != "object":
            return False
        pairs = ((pair.child_by_field_name("key"), pair.child_by_field_name("value")) for pair in option.named_children)
        return any(
            key is not None and value is not None and _name(key) == "shell" and value.type != "false"
            for key, value in pairs
        )

    # --- where text comes from

    def _has_origin(self, node: Node) -> bool:
        first = _first(node)
        return first is not None and first.type in ("identifier", "call_expression") and first.id in self._origins

    def _traced(self, assigned: "Sequence[tuple[str, Node]]") -> "dict[int, _Origin]":
        """The origin of each node that has one, in or below it. Names have that of what they are given."""
        direct = {
            node.id: origin
            for kind, node in self._nodes
            if kind == "call_expression" and (origin := self._own_origin(node)) is not None
        }
        identifiers = {node.id: _name(node) for kind, node in self._nodes if kind == "identifier"}
        names: dict[str, _Origin] = {}
        found: dict[int, _Origin] = {}
        for _ in range(_LONGEST_TRACE):
            found = {}
            for node, parent in reversed(self._found):  # what is inside comes before what it is in
                key = node.id
                if (origin := direct.get(key) or names.get(identifiers.get(key, "")) or found.get(key)) is not None:
                    found[key] = origin
                    if parent >= 0:
                        found[self._found[parent][0].id] = origin
            given = {name: found[value.id] for name, value in assigned if value.id in found}
            if len(given) == len(names):
                break
            names = given
        return found

    def _own_origin(self, node: Node) -> "_Origin | None":
        """Of a call: whether it decodes or fetches, and the finding that it makes of running what comes of it."""
        for name in self._resolved(_callee(node)):
            if name in known.JAVASCRIPT_DECODES or self._is_decoding_buffer(name, node):
                return FindingCode.EVAL_DECODED, name
            if known.meaning(known.JAVASCRIPT, name) is FindingCode.SOCKET_OPEN:
                return FindingCode.EVAL_DOWNLOADED, name
        return None

    def _is_decoding_buffer(self, name: str, node: Node) -> bool:
        """`Buffer.from(x, "base64")`"""
        arguments = node.child_by_field_name("arguments")
        if name != "Buffer.from" or arguments is None or len(arguments.named_children) < 2:
            return False
        return self._texts.whole(arguments.named_children[1]) in ("base64", "base64url", "hex", "latin1", "binary")


def _module(name: str) -> str:
    return name.removeprefix("node:")


def _joined(base: str, name: str) -> str:
    return name if base in _GLOBALS else f"{base}.{name}"


def _name(node: Node) -> str:
    """Of an identifier, in which any character may be written as its number."""
    name = text_of(node)
    return name if "\\" not in name else _ESCAPE.sub(lambda found: escaped(found[0]) or found[0], name)


def _operator(node: Node) -> str:
    operator = node.child_by_field_name("operator")
    return "" if operator is None else operator.type


def _own_names(program: Node) -> frozenset[str]:
    """What the program itself gives a meaning: none of them is what would be there otherwise."""
    found: set[str] = set()
    for node in program.named_children:
        if node.type in ("function_declaration", "generator_function_declaration", "class_declaration"):
            found.add(_name(node.child_by_field_name("name") or node))
        elif node.type in ("lexical_declaration", "variable_declaration"):
            found |= {_name(part.child_by_field_name("name") or part) for part in node.named_children}
        elif node.type == "import_statement":
            found |= _imported(node)
    return frozenset(found)


def _imported(statement: Node) -> set[str]:
    clauses = [clause for clause in statement.named_children if clause.type == "import_clause"]
    parts = [part for clause in clauses for part in clause.named_children]
    found = {_name(part) for part in parts if part.type == "identifier"}
    for part in parts:
        for name in part.named_children if part.type == "named_imports" else ():
            local = name.child_by_field_name("alias") or name.child_by_field_name("name")
            found.add(_name(local or name))
    return found


def _awaited(call: Node) -> list[tuple[Node | None, Node | None]]:
    """`import("x").then(y => …)`: what y is given."""
    function = call.child_by_field_name("function")
    if function is None or function.type != "member_expression":
        return []
    method, handler = function.child_by_field_name("property"), _first(call)
    if method is None or text_of(method) != "then" or handler is None or handler.type != "arrow_function":
        return []
    given = handler.child_by_field_name("parameter") or handler.child_by_field_name("parameters")
    if given is not None and given.type == "formal_parameters":
        given = next(without_comments(given), None)
    return [(given, function.child_by_field_name("object"))]


def _callee(node: Node) -> Node | None:
    return node.child_by_field_name("function") or node.child_by_field_name("constructor")


def _first(node: Node) -> Node | None:
    """The first argument of a call, which may be a template (a`b`) as well."""
    arguments = node.child_by_field_name("arguments")
    if arguments is None or arguments.type == "template_string":
        return arguments
    return next(without_comments(arguments), None)


_Origin = tuple[FindingCode, str]
