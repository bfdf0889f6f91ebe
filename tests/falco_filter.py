"""Reads a condition of a Falco rule by the grammar that falcosecurity/libs documents, and answers it for one event.

After `userspace/libsinsp/filter/parser.h`, without what rules over JSON have no use for: field transformers, numeric
operators, `pmatch`, `intersects` and `glob`. Fields are those of the plugin json. It is no Falco: what it refuses is
wrong, what it takes may still be.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_FIELD = re.compile(r"[a-zA-Z]+[a-zA-Z0-9_]*(?:\.[a-zA-Z]+[a-zA-Z0-9_]*)+")
_ARGUMENT = re.compile(r"""\[([^\]\["'\s]+)\]""")
_IDENTIFIER = re.compile(r"[a-zA-Z]+[a-zA-Z0-9_]*")
_QUOTED = re.compile(r'"((?:\\"|[^"])*)"|\'((?:\\\'|[^\'])*)\'')
_BARE = re.compile(r"""[^()"'\s=,]+""")
_SHOWN = re.compile(r"%([a-zA-Z0-9_.]+)(?:\[([^\]]*)\])?")

Event = Mapping[str, object]
Test = Callable[[Event], bool]
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "==": str.__eq__,
    "=": str.__eq__,
    "!=": str.__ne__,
    "contains ": lambda found, text: text in found,
    "icontains ": lambda found, text: text.lower() in found.lower(),
    "startswith ": str.startswith,
    "endswith ": str.endswith,
}


class NoCondition(Exception):
    """It is not what the grammar says; the message has what was due and what stands there."""


@dataclass
class Definitions:
    """Macros and lists defined so far, and what conditions have used of them and of the event."""

    macros: dict[str, Test] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)
    pointers: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)


def parsed(text: str, definitions: Definitions) -> Test:
    reader = _Reader(text.strip(), definitions)
    test = reader.either()
    if reader.at != len(reader.text):
        raise NoCondition(f"'or' or 'and' is due at {reader.rest()!r}")
    return test


def shown(output: str) -> list[tuple[str, str]]:
    """Field and argument of each `%field[argument]` of an output."""
    return [(name, argument) for name, argument in _SHOWN.findall(output)]


def value(event: Event, pointer: str) -> str | None:
    """`json.value[pointer]`: a string as it is, anything else as JSON. None where there is nothing."""
    found: object = event
    for key in pointer.removeprefix("/").split("/"):
        key = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    match found:
        case str():
            return found
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[found]
        case _:
            return str(found)


class _Reader:
    def __init__(self, text: str, definitions: Definitions) -> None:
        self.text = text
        self.at = 0
        self._definitions = definitions

    def rest(self) -> str:
        return self.text[self.at : self.at + 30]

    def either(self) -> Test:
        tests = [self.all()]
        while self._word("or"):
            tests.append(self.all())
        return lambda event: any(test(event) for test in tests)

    def all(self) -> Test:
        tests = [self._not()]
        while self._word("and"):
            tests.append(self._not())
        return lambda event: all(test(event) for test in tests)

    def _not(self) -> Test:
        negated = False
        while self._word("not"):
            negated = not negated
        test = self._check()
        return (lambda event: not test(event)) if negated else test

    def _check(self) -> Test:
        self._blank()
        if self._literal("("):
            test = self.either()
            self._due(")")
            return test
        if name := self._match(_FIELD):
            return self._condition(self._pointer(name[0]))
        if (name := self._match(_IDENTIFIER)) and name[0] in self._definitions.macros:
            self._definitions.used.add(name[0])
            return self._definitions.macros[name[0]]
        raise NoCondition(f"a field, a macro that is defined before, or '(' is due at {self.rest()!r}")

    def _pointer(self, name: str) -> str:
        argument = self._match(_ARGUMENT)
        if name != "json.value" or argument is None:
            raise NoCondition(f"a field of the plugin json, with its pointer, is due before {self.rest()!r}")
        self._definitions.pointers.add(argument[1])
        return argument[1]

    def _condition(self, pointer: str) -> Test:
        self._blank()
        if self._literal("exists"):
            return lambda event: value(event, pointer) is not None
        for operator, holds in _OPERATORS.items():
            if self._literal(operator):
                text = self._text()
                return lambda event: (found := value(event, pointer)) is not None and holds(found, text)
        if self._literal("in"):
            items = self._list()
            return lambda event: value(event, pointer) in items
        raise NoCondition(f"an operator is due at {self.rest()!r}")

    def _list(self) -> list[str]:
        self._blank()
        self._due("(")
        items: list[str] = []
        while not self._literal(")"):
            item = self._text()
            if item in self._definitions.lists:
                self._definitions.used.add(item)
                items += self._definitions.lists[item]
            else:
                items.append(item)
            self._blank()
            if not self._literal(","):
                self._due(")")
                break
        return items

    def _text(self) -> str:
        self._blank()
        if quoted := self._match(_QUOTED):
            return quoted[1] if quoted[1] is not None else quoted[2]
        if bare := self._match(_BARE):
            return bare[0]
        raise NoCondition(f"a value is due at {self.rest()!r}")

    def _word(self, word: str) -> bool:
        """A keyword, with a blank or a bracket behind it."""
        self._blank()
        behind = self.text[self.at + len(word) : self.at + len(word) + 1]
        return self.text.startswith(word, self.at) and (behind.isspace() or behind == "(") and self._literal(word)

    def _blank(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _literal(self, text: str) -> bool:
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _due(self, text: str) -> None:
        self._blank()
        if not self._literal(text):
            raise NoCondition(f"{text!r} is due at {self.rest()!r}")

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found
