"""Reads shell by its syntax tree: which commands are named, with which text in their words, and what they are fed.

The grammar is bash's, for every shell. Words count as far as they are literal; what is expanded is only seen as such.
Only ever called in the worker.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from sandboxd.analysis import known
from sandboxd.analysis.commandline import (
    SHELL,
    Code,
    code_in,
    commands,
    interpreter_of,
    reads_its_program,
    short,
)
from sandboxd.analysis.report import Report
from sandboxd.analysis.tree import line_of, nested, text_of, understood
from sandboxd.finding import FindingCode

_PARSER = Parser(Language(tree_sitter_bash.language()))
_SOURCES = frozenset({"source", "."})
_NETWORK_PATHS = ("/dev/tcp/", "/dev/udp/")
_WORDS = frozenset({"word", "string", "raw_string", "ansi_c_string", "concatenation", "number", "simple_expansion",
                    "expansion", "command_substitution", "process_substitution", "translated_string",
                    "arithmetic_expansion", "brace_expression"})  # fmt: skip
_PATHS = frozenset({"word", "string_content", "raw_string", "ansi_c_string", "heredoc_body", "concatenation"})
_DEEPEST = 32
_MOST_READERS = 8
_MOST_OPTIONS = 8  # of a command that runs what follows: it may run itself, over and over


@dataclass(slots=True)
class _Commands:
    """Of a part of the source: which of its commands take their program from what they are fed, which fetch or decode.

    By their short names, in the order of the source.
    """

    readers: dict[str, None] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)

    def before(self, later: "_Commands") -> "_Commands":
        readers = self.readers | later.readers
        return _Commands(dict.fromkeys(list(readers)[:_MOST_READERS]), self.sources | later.sources)


def read(source: bytes, report: Report) -> bool:
    """Whether all of it was understood."""
    tree = _PARSER.parse(source)
    found = list(nested(tree))
    reader = _Reader(found, report)
    for node, _ in found:
        reader.look(node)
    return understood(tree, report)


class _Reader:
    def __init__(self, found: Sequence[tuple[Node, int]], report: Report) -> None:
        self._report = report
        self._commands = _commands_below(found)

    def look(self, node: Node) -> None:
        match node.type:
            case "command":
                self._command(node)
            case "pipeline":
                self._pipeline(node)
            case "redirected_statement":
                self._fed(node)
            case "declaration_command":
                self._exports(node)
            case kind if kind in _PATHS:
                _touches(node, self._report)
            case _:
                pass

    def _below(self, node: Node) -> _Commands:
        return self._commands.get(node.id, _NO_COMMANDS)

    def _command(self, node: Node) -> None:
        words = _words(node)
        line = line_of(node)
        for child in node.named_children:
            if child.type == "variable_assignment" and (name := child.child_by_field_name("name")):
                self._report.add(FindingCode.COMMAND_ENV, text_of(name), line)
            elif child.type == "herestring_redirect":
                self._feeds(node, child, _literal(child.named_children[-1]))
        names = [_literal(word) for word in words]
        for start, end in commands(names):
            _named(names, start, end, self._report, line)
            self._evaluates(words, names, start, end, line)

    def _exports(self, node: Node) -> None:
        """For all commands that follow: told of what makes a program load something else."""
        words = [text_of(child) for child in node.children if child.type != "variable_assignment"]
        if words[:1] == ["export"] or any(word.startswith("-") and "x" in word for word in words):
            for child in node.named_children:
                name = child.child_by_field_name("name") if child.type == "variable_assignment" else None
                if name is not None and text_of(name).startswith(known.STEERING_VARIABLES):
                    self._report.add(FindingCode.COMMAND_ENV, text_of(name), line_of(node))

    def _evaluates(self, words: Sequence[Node], names: Sequence[str | None], start: int, end: int, line: int) -> None:
        """Text becomes code: `eval`, `bash -c`, `source <(…)`; worse if a command inside decodes or fetches it."""
        name = short(names[start] or "")
        if name != "eval" and name not in _SOURCES and not _interprets(name):
            return
        arguments = words[start + 1 : end]
        if _interprets(name):
            plain = [word or "" for word in names[start:end]]
            streamed = any(word.type == "process_substitution" for word in arguments)
            coded = not known.OTHER_INTERPRETERS.get(name, frozenset()).isdisjoint(plain)
            if not streamed and not coded and code_in(plain) is None:
                return
        if name not in _SOURCES:
            self._report.add(FindingCode.EVAL_STRING, name, line)
        for argument in arguments:
            self._from(self._below(argument).sources, line)

    def _pipeline(self, node: Node) -> None:
        """`curl … | sh`: what is in front of an interpreter that reads its input."""
        before: dict[str, None] = {}
        for place, part in enumerate(node.named_children):
            below = self._below(part)
            for name in below.readers if place else ():
                self._report.add(FindingCode.EVAL_STRING, name, line_of(part))
                self._from(before, line_of(part))
            before |= below.sources

    def _fed(self, node: Node) -> None:
        """A here-document for an interpreter is its program; it may stand in a pipe that begins after it."""
        for redirect in node.named_children:
            if redirect.type == "file_redirect" and any(child.type == "<" for child in redirect.children):
                self._feeds(node, redirect, None)
            for child in redirect.named_children:
                if child.type == "heredoc_body":
                    self._feeds(node, child, text_of(child))

    def _feeds(self, node: Node, fed: Node, text: str | None) -> None:
        """`text` is None where it is expanded."""
        reader = next(iter(self._below(node).readers), None)
        if reader is not None:
            self._report.add(FindingCode.EVAL_STRING, reader, line_of(fed))
            self._from(self._below(fed).sources, line_of(fed))
            if language := interpreter_of(reader):
                self._report.embed(Code(language, text or ""), line_of(fed))

    def _from(self, names: Iterable[str], line: int) -> None:
        """What the text that becomes code comes from."""
        for name in names:
            if name in known.FETCHERS:
                self._report.add(FindingCode.EVAL_DOWNLOADED, name, line)
            if name in known.DECODERS:
                self._report.add(FindingCode.EVAL_DECODED, name, line)


_NO_COMMANDS = _Commands()


def _commands_below(found: Sequence[tuple[Node, int]]) -> dict[int, _Commands]:
    """For each node with commands in it, or which is one. `found` has the place of each node's parent."""
    below: dict[int, _Commands] = {}
    for node, parent in reversed(found):  # what is inside, or comes later, comes first
        if node.type == "command" and (own := _own_commands(node)) is not None:
            below[node.id] = own.before(below.get(node.id, _NO_COMMANDS))
        if parent >= 0 and (mine := below.get(node.id)) is not None:
            outer = found[parent][0].id
            below[outer] = mine.before(below[outer]) if outer in below else mine
    return below


def _own_commands(node: Node) -> _Commands | None:
    own = _Commands()
    names = [_literal(word) for word in _words(node)]
    handed = False  # what is read becomes words of the command line
    for start, end in commands(names):
        name = short(names[start] or "")
        handed |= name in ("xargs", "parallel")
        if _interprets(name) and (handed or reads_its_program([word or "" for word in names[start:end]])):
            own.readers[name] = None
        if name in known.FETCHERS or name in known.DECODERS:
            own.sources[name] = None
    return own if own.readers or own.sources else None


def _interprets(name: str) -> bool:
    return bool(interpreter_of(name)) or name in known.OTHER_INTERPRETERS


def _named(names: Sequence[str | None], start: int, end: int, report: Report, line: int) -> None:
    """A command, whose words are None where they are expanded."""
    name = names[start]
    if name is None:
        report.add(FindingCode.CALL_DYNAMIC, "command", line)
        return
    called = short(name)
    if called in _SOURCES:
        report.add(FindingCode.IMPORT, (names[start + 1] or "") if end - start > 1 else "", line)
        return
    report.add(FindingCode.COMMAND, name, line)
    if called in known.TALKERS:
        report.add(FindingCode.SOCKET_OPEN, called, line)
    if called in known.WRAPPERS and called not in known.LINE_OPTIONS:
        return  # it has no code of its own
    last = min(end, start + 1 + _MOST_OPTIONS) if called in known.WRAPPERS else end
    arguments = names[start + 1 : last]
    if called == "eval":
        report.embed(Code(SHELL, " ".join(word or "" for word in arguments)) if None not in arguments else None, line)
    elif called == "trap" and arguments:
        report.embed(Code(SHELL, arguments[0] or ""), line)
    elif called == "alias":
        for word in arguments:
            report.embed(Code(SHELL, (word or "").partition("=")[2]), line)
    elif called in known.LINE_OPTIONS:
        for option, word in pairwise(arguments):
            report.embed(Code(SHELL, word or "") if option in known.LINE_OPTIONS[called] else None, line)
    elif interpreter_of(called):
        report.embed(code_in([word or "" for word in names[start:end]]), line)


def _words(command: Node) -> list[Node]:
    """Its name and arguments."""
    found = []
    for child in command.named_children:
        if child.type == "command_name":
            found += child.named_children
        elif child.type in _WORDS:
            found.append(child)
    return found


def _touches(node: Node, report: Report) -> None:
    text = (_literal(node) or "") if node.type in ("concatenation", "word") else text_of(node)
    for place in known.credential_places(text):
        report.add(FindingCode.CREDENTIAL_PATH, place, line_of(node))
    for path in _NETWORK_PATHS:
        if path in text:
            report.add(FindingCode.SOCKET_OPEN, path.rstrip("/"), line_of(node))


def _literal(node: Node, depth: int = 0) -> str | None:
    """What the shell makes of a word, if it needs no expansion for it."""
    match node.type:
        case "word":
            return _unescaped(text_of(node))
        case "number":
            return text_of(node)
        case "raw_string":
            return text_of(node)[1:-1]
        case "ansi_c_string":
            return _ansi(text_of(node)[2:-1])
        case "string" | "concatenation" if depth < _DEEPEST:
            parts = [_literal(child, depth + 1) for child in node.named_children]
            whole = [part for part in parts if part is not None]
            return "".join(whole) if len(whole) == len(parts) else None
        case "string_content":
            return text_of(node)
        case _:
            return None


def _unescaped(text: str) -> str:
    """`c\\url` is `curl`."""
    if "\\" not in text:
        return text
    halves = text.split("\\\\")
    return "\\".join(half.replace("\\", "") for half in halves)


def _ansi(text: str) -> str | None:
    """`$'\\x63url'`. None if it does not decode."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return None
