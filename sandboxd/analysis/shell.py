"""Reads shell by its syntax tree: which commands are named, with which text in their words, and what they are fed.

The grammar is bash's, for every shell. Words count as far as they are literal; what is expanded is only seen as such.
Only ever called in the worker.
"""

from collections.abc import Iterable, Iterator, Sequence

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from sandboxd.analysis import known
from sandboxd.analysis.commandline import SHELL, Code, code_in, interpreter_of
from sandboxd.analysis.report import Report
from sandboxd.analysis.tree import line_of, nodes, text_of, understood
from sandboxd.finding import FindingCode

_PARSER = Parser(Language(tree_sitter_bash.language()))
_SOURCES = frozenset({"source", "."})
_NETWORK_PATHS = ("/dev/tcp/", "/dev/udp/")
_WORDS = frozenset({"word", "string", "raw_string", "ansi_c_string", "concatenation", "number", "simple_expansion",
                    "expansion", "command_substitution", "process_substitution", "translated_string",
                    "arithmetic_expansion", "brace_expression"})  # fmt: skip
_PATHS = frozenset({"word", "string_content", "raw_string", "ansi_c_string", "heredoc_body", "concatenation"})
_DEEPEST = 32


def read(source: bytes, report: Report) -> bool:
    """Whether all of it was understood."""
    tree = _PARSER.parse(source)
    for node in nodes(tree):
        match node.type:
            case "command":
                _command(node, report)
            case "pipeline":
                _pipeline(node, report)
            case "redirected_statement":
                _fed(node, report)
            case kind if kind in _PATHS:
                _touches(node, report)
            case _:
                pass
    return understood(tree, report)


def _command(node: Node, report: Report) -> None:
    words = _words(node)
    line = line_of(node)
    for child in node.named_children:
        if child.type == "variable_assignment" and (name := child.child_by_field_name("name")):
            report.add(FindingCode.COMMAND_ENV, text_of(name), line)
        elif child.type == "herestring_redirect":
            _feeds(list(_readers(node)), child, _literal(child.named_children[-1]), report)
    for names in _unwrapped([_literal(word) for word in words]):
        _named(names, report, line)
    _evaluates(words, report, line)


def _named(names: Sequence[str | None], report: Report, line: int) -> None:
    """A command, whose words are None where they are expanded."""
    name = names[0]
    if name is None:
        report.add(FindingCode.CALL_DYNAMIC, "command", line)
        return
    short = _short(name)
    if short in _SOURCES:
        report.add(FindingCode.IMPORT, (names[1] or "") if len(names) > 1 else "", line)
        return
    report.add(FindingCode.COMMAND, name, line)
    if short in known.TALKERS:
        report.add(FindingCode.SOCKET_OPEN, short, line)
    arguments = [word or "" for word in names]
    if short == "eval" and len(arguments) > 1:
        report.embed(Code(SHELL, " ".join(arguments[1:])) if None not in names else None, line)
    elif short == "trap" and len(arguments) > 1:
        report.embed(Code(SHELL, arguments[1]), line)
    else:
        report.embed(code_in(arguments), line)


def _unwrapped(names: list[str | None]) -> Iterator[list[str | None]]:
    """The command, and those that it runs in turn (`sudo -u x env A=b sh`, `find -exec sh`)."""
    while names:
        yield names
        names = names[_own_words(names) :]


def _own_words(names: Sequence[str | None]) -> int:
    """How many of the words are the first command's own: all, unless it runs what follows."""
    name = _short(names[0])
    if name == "find":
        return next((place + 1 for place, word in enumerate(names) if word in known.EXECUTING_OPTIONS), len(names))
    if name not in known.WRAPPERS:
        return len(names)
    takes_a_word = {f"-{letter}" for letter in known.WRAPPERS[name]}
    place = 1
    while place < len(names):
        word = names[place] or ""
        # `env A=b`, `timeout 5s`
        if not word.startswith("-") and "=" not in word and not word[:1].isdigit():
            break
        place += 2 if word in takes_a_word else 1
    return place


def _short(name: str | None) -> str:
    return (name or "").rpartition("/")[2]


def _evaluates(words: Sequence[Node], report: Report, line: int) -> None:
    """Text becomes code: `eval`, `bash -c`, `source <(…)`; worse if a command inside decodes or fetches it."""
    for names in _unwrapped([_literal(word) for word in words]):
        name = _short(names[0])
        arguments = words[len(words) - len(names) + 1 :]
        commanded = "-c" in names or "-e" in names or any(word.type == "process_substitution" for word in arguments)
        if name not in ("eval", *_SOURCES) and not (interpreter_of(name) and commanded):
            continue
        if name not in _SOURCES:
            report.add(FindingCode.EVAL_STRING, name, line)
        _from([found for argument in arguments for found in _commands(argument)], report, line)


def _pipeline(node: Node, report: Report) -> None:
    """`curl … | sh`: what is in front of an interpreter that reads its input."""
    before: dict[str, None] = {}
    for part in node.named_children:
        commands = list(_commands(part))
        for name in commands:
            if before and interpreter_of(name):
                report.add(FindingCode.EVAL_STRING, name, line_of(part))
                _from(before, report, line_of(part))
        before |= dict.fromkeys(commands)


def _fed(node: Node, report: Report) -> None:
    """A here-document for an interpreter is its program; it may stand in a pipe that begins after it."""
    for redirect in node.named_children:
        for child in redirect.named_children:
            if child.type == "heredoc_body":
                _feeds(list(_readers(node)), child, text_of(child), report)


def _readers(node: Node) -> Iterator[str]:
    return (name for name in _commands(node) if interpreter_of(name))


def _feeds(readers: Sequence[str], fed: Node, text: str | None, report: Report) -> None:
    """`text` is None where it is expanded."""
    if readers:
        report.add(FindingCode.EVAL_STRING, readers[0], line_of(fed))
        _from(list(_commands(fed)), report, line_of(fed))
        report.embed(Code(interpreter_of(readers[0]), text or ""), line_of(fed))


def _from(commands: Iterable[str], report: Report, line: int) -> None:
    """What the text that becomes code comes from."""
    for name in commands:
        if name in known.FETCHERS:
            report.add(FindingCode.EVAL_DOWNLOADED, name, line)
        if name in known.DECODERS:
            report.add(FindingCode.EVAL_DECODED, name, line)


def _commands(node: Node) -> Iterator[str]:
    """The short names of all commands below, their wrappers aside."""
    waiting = [node]
    while waiting:
        inner = waiting.pop()
        if inner.type == "command":
            for names in _unwrapped([_literal(word) for word in _words(inner)]):
                yield _short(names[0])
        waiting.extend(reversed(inner.named_children))


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
    text = (_literal(node) or "") if node.type == "concatenation" else text_of(node)
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
