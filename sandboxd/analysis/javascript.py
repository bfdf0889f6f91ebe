"""Reads JavaScript by its syntax tree: which modules are loaded, and which known functions are named, under any name.

A name counts wherever it stands, called or handed on, and means all that it is given anywhere in the source. TypeScript
is not understood. Only ever called in the worker.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import tree_sitter_javascript
from tree_sitter import Language, Node, Parser

from sandboxd.analysis import known
from sandboxd.analysis.commandline import JAVASCRIPT, SHELL, Code, code_in
from sandboxd.analysis.report import Report
from sandboxd.analysis.tree import line_of, nodes, text_of, understood
from sandboxd.finding import FindingCode

_PARSER = Parser(Language(tree_sitter_javascript.language()))
_DEEPEST, _MEANINGS, _ROUNDS = 32, 16, 3
_LONGEST_NAME, _LONGEST_TEXT = 128, 65536
_GLOBALS = frozenset({"globalThis", "global", "window", "self"})
_LOADERS = frozenset({"require", "import", "module.require", "process.mainModule.require", "process.getBuiltinModule",
                      "module.createRequire()"})  # fmt: skip
_HEADS = (
    {name.partition(".")[0] for name in (*known.JAVASCRIPT, *known.JAVASCRIPT_DECODES)}
    | _GLOBALS
    | known.JAVASCRIPT_TIMERS
    | {"require", "module", "process", "Buffer", "import"}
)
_TRANSPARENT = frozenset({"parenthesized_expression", "await_expression"})
_READ = frozenset({"import_statement", "export_statement", "variable_declarator", "assignment_expression", "identifier",
                   "member_expression", "subscript_expression", "call_expression", "new_expression", "string",
                   "template_string", "binary_expression"})  # fmt: skip


def read(source: bytes, report: Report) -> bool:
    """Whether all of it was understood."""
    tree = _PARSER.parse(source)
    _Reader([(kind, node) for node in nodes(tree) if (kind := node.type) in _READ], report).run()
    return understood(tree, report)


class _Reader:
    def __init__(self, found: list[tuple[str, Node]], report: Report) -> None:
        self._nodes = found
        self._report = report
        self._names: dict[str, set[str]] = defaultdict(set)
        self._texts: dict[str, str] = {}
        self._sources: dict[str, tuple[FindingCode, str]] = {}  # of names whose value was decoded or fetched

    def run(self) -> None:
        assigned = []
        for kind, node in self._nodes:
            match kind:
                case "import_statement" | "export_statement":
                    self._imports(node)
                case "variable_declarator":
                    assigned.append((node.child_by_field_name("name"), node.child_by_field_name("value")))
                case "assignment_expression":
                    assigned.append((node.child_by_field_name("left"), node.child_by_field_name("right")))
                case _:
                    pass
        for _ in range(_ROUNDS):
            for target, value in assigned:
                if target is not None and value is not None:
                    self._assigns(target, value)
        for kind, node in self._nodes:
            self._look(kind, node)

    # --- names

    def _imports(self, node: Node) -> None:
        source = node.child_by_field_name("source")
        if source is None:
            return
        module = _module(self._text(source) or "")
        self._report.add(FindingCode.IMPORT, module, line_of(node))
        for clause in node.named_children:
            if clause.type == "import_clause":
                self._clause(clause, module)

    def _clause(self, clause: Node, module: str) -> None:
        for part in clause.named_children:
            match part.type:
                case "identifier":
                    self._means(text_of(part), module)
                case "namespace_import":
                    self._means(text_of(part.named_children[0]), module)
                case "named_imports":
                    for specifier in part.named_children:
                        if (name := specifier.child_by_field_name("name")) is not None:
                            alias = specifier.child_by_field_name("alias") or name
                            self._means(text_of(alias), f"{module}.{text_of(name)}")
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
        name = text_of(target)
        for meaning in self._resolved(value):
            self._means(name, meaning)
        if (text := self._text(value)) is not None:
            self._texts.setdefault(name, text)
        if (origin := self._origin(value)) is not None:
            self._sources.setdefault(name, origin)

    def _taken_apart(self, part: Node, value: Node) -> None:
        """`const {exec: run} = …`"""
        key, target = part, part
        if part.type == "pair_pattern":
            key, target = (part.child_by_field_name("key") or part, part.child_by_field_name("value") or part)
        for base in self._resolved(value):
            self._means(text_of(target), _joined(base, text_of(key)))

    def _resolved(self, node: Node | None, depth: int = 0) -> set[str]:
        """The dotted names that an expression may stand for."""
        if node is None or depth > _DEEPEST:
            return set()
        match node.type:
            case "identifier" | "import" | "shorthand_property_identifier":
                name = text_of(node)
                return self._names.get(name) or ({name} if name in _HEADS else set())
            case "member_expression":
                name = text_of(node.child_by_field_name("property") or node)
                return {_joined(base, name) for base in self._resolved(node.child_by_field_name("object"), depth + 1)}
            case "subscript_expression":
                key = self._text(node.child_by_field_name("index"))
                bases = self._resolved(node.child_by_field_name("object"), depth + 1)
                return set() if key is None else {_joined(base, key) for base in bases}
            case "call_expression" | "new_expression":
                return self._returned(node, depth + 1)
            case "sequence_expression":
                return self._resolved(node.named_children[-1], depth + 1)
            case kind if kind in _TRANSPARENT:
                return self._resolved(node.named_children[0] if node.named_children else None, depth + 1)
            case _:
                return set()

    def _returned(self, node: Node, depth: int) -> set[str]:
        names = self._resolved(_callee(node), depth)
        first = self._text(_first(node))
        if names & _LOADERS and first is not None:
            return {_module(first)}
        return {f"{name}()" for name in names}

    def _text(self, node: Node | None, depth: int = 0) -> str | None:
        """The text that an expression is, if it is put together from literals."""
        if node is None or depth > _DEEPEST:
            return None
        match node.type:
            case "string" | "template_string":
                return _together([self._text(part, depth + 1) for part in node.named_children])
            case "string_fragment":
                return text_of(node)
            case "escape_sequence":
                return _escaped(text_of(node))
            case "template_substitution":
                return self._text(node.named_children[0] if node.named_children else None, depth + 1)
            case "identifier":
                return self._texts.get(text_of(node))
            case "binary_expression" if text_of(node.child_by_field_name("operator") or node) == "+":
                sides = (node.child_by_field_name("left"), node.child_by_field_name("right"))
                return _together([self._text(side, depth + 1) for side in sides])
            case kind if kind in _TRANSPARENT:
                return self._text(node.named_children[0] if node.named_children else None, depth + 1)
            case _:
                return None

    # --- what they do

    def _look(self, kind: str, node: Node) -> None:
        match kind:
            case "identifier":
                self._named(node)
            case "member_expression":
                self._named(node)
                if _is_constructor(node) and _is_constructor(node.child_by_field_name("object")):
                    self._report.add(FindingCode.CALL_DYNAMIC, "constructor", line_of(node))
            case "subscript_expression":
                self._named(node)
                if self._text(node.child_by_field_name("index")) is None:
                    self._taken_out(node)
            case "call_expression" | "new_expression":
                self._named(node)
                self._called(node)
            case "string" | "binary_expression":
                self._places(self._text(node) or "", node)
            case "template_string":
                self._places(text_of(node), node)
            case _:
                pass

    def _places(self, text: str, node: Node) -> None:
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
        first = self._text(_first(node))
        for name in self._resolved(_callee(node)):
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
        if arguments is not None and (origin := self._origin(arguments)) is not None:
            self._report.add(*origin, line_of(node))
        self._report.embed(code, line_of(node))

    def _handed(self, name: str, node: Node, first: str | None) -> Code | None:
        if first is None or name in known.JAVASCRIPT_SHELLS:
            return Code(SHELL, first or "")
        arguments = node.child_by_field_name("arguments")
        rest = arguments.named_children[1] if arguments is not None and len(arguments.named_children) > 1 else None
        words = [self._text(part) or "" for part in rest.named_children] if rest is not None else []
        return code_in([first, *words])

    def _has_origin(self, node: Node) -> bool:
        first = _first(node)
        return first is not None and first.type in ("identifier", "call_expression") and self._origin(first) is not None

    def _origin(self, value: Node) -> tuple[FindingCode, str] | None:
        """Whether something in there is decoded or fetched: the finding that it makes of running it."""
        waiting = [value]
        while waiting:
            node = waiting.pop()
            if node.type == "identifier" and text_of(node) in self._sources:
                return self._sources[text_of(node)]
            if node.type == "call_expression":
                for name in self._resolved(_callee(node)):
                    if name in known.JAVASCRIPT_DECODES or self._is_decoding_buffer(name, node):
                        return FindingCode.EVAL_DECODED, name
                    if known.meaning(known.JAVASCRIPT, name) is FindingCode.SOCKET_OPEN:
                        return FindingCode.EVAL_DOWNLOADED, name
            waiting.extend(node.named_children)
        return None

    def _is_decoding_buffer(self, name: str, node: Node) -> bool:
        """`Buffer.from(x, "base64")`"""
        arguments = node.child_by_field_name("arguments")
        if name != "Buffer.from" or arguments is None or len(arguments.named_children) < 2:
            return False
        return self._text(arguments.named_children[1]) in ("base64", "base64url", "hex", "latin1", "binary")


def _module(name: str) -> str:
    return name.removeprefix("node:")


def _joined(base: str, name: str) -> str:
    return name if base in _GLOBALS else f"{base}.{name}"


def _is_constructor(node: Node | None) -> bool:
    """`x.constructor`, of which two make a function out of text."""
    name = None if node is None else node.child_by_field_name("property")
    return name is not None and text_of(name) == "constructor"


def _callee(node: Node) -> Node | None:
    return node.child_by_field_name("function") or node.child_by_field_name("constructor")


def _first(node: Node) -> Node | None:
    """The first argument of a call, which may be a template (a`b`) as well."""
    arguments = node.child_by_field_name("arguments")
    if arguments is None or arguments.type == "template_string":
        return arguments
    return next(_without_comments(arguments), None)


def _without_comments(node: Node) -> Iterator[Node]:
    return (child for child in node.named_children if child.type != "comment")


def _together(texts: Sequence[str | None]) -> str | None:
    """None if one of them is not known, or if it gets too long."""
    whole = [text for text in texts if text is not None]
    return "".join(whole) if len(whole) == len(texts) and sum(map(len, whole)) <= _LONGEST_TEXT else None


def _escaped(text: str) -> str | None:
    """`\\x65` and its like; None if it does not decode."""
    try:
        return text.replace("\\u{", "\\U").removesuffix("}").encode("latin-1", "ignore").decode("unicode_escape")
    except UnicodeDecodeError:
        return None
