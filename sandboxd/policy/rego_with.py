"""Rewrites `EXPRESSION with input as VALUE` in tests: the embedded engine cannot compile it over rules that use rules.

Each such place gets a copy of the policy, under packages of its own, that reads VALUE where the policy reads `input`.
Never touches what decides: called by `rego_tests` alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_builtins import CONTINUING, PROVEN, TOKEN, package
from sandboxd.policy.rego_rules import rules

_COPY, _INPUT = "sandboxd_with_", "sandboxd_input_"
_KNOWN = frozenset({"data", "true", "false", "null"}) | PROVEN
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


@dataclass(frozen=True, slots=True)
class _Place:
    """Tokens of the expression, and of the value, as ranges; `end` is behind the value."""

    begin: int
    with_: int
    value: int
    end: int


@dataclass(frozen=True, slots=True)
class _Text:
    """A module as tokens, spaces too."""

    path: str
    tokens: tuple[re.Match[str], ...]

    def line(self, index: int) -> int:
        return self.tokens[0].string.count("\n", 0, self.tokens[index].start()) + 1


def expand(
    policy: Sequence[tuple[str, str]], tests: Sequence[tuple[str, str]]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """The tests without `with`, and the copies of the policy that they then need.

    PolicyInvalid for a `with` that replaces anything but the whole input, or whose value is not the same everywhere.
    """
    defined = {(rule.package, rule.name) for rule in rules(tests)}
    packages = frozenset(package(source) for _, source in policy)
    rewritten: list[tuple[str, str]] = []
    copies: list[tuple[str, str]] = []
    for path, source in tests:
        text = _Text(path, tuple(TOKEN.finditer(source)))
        own = package(source)
        pieces = [match[0] for match in text.tokens]
        inputs: list[str] = []
        known = _KNOWN.union((name for below, name in defined if below == own), _aliases(text))
        for place in _places(text):
            number = len(copies) // max(len(policy), 1)
            copy = f"{_COPY}{number}"
            _require_closed(text, place, known)
            for index in range(place.begin, place.with_):
                pieces[index] = _moved(text, index, packages, copy)
            inputs.append(f"{_INPUT}{number} := {''.join(pieces[place.value : place.end])}\n")
            pieces[place.with_ : place.end] = [""] * (place.end - place.with_)
            name = ".".join(("data", *own, f"{_INPUT}{number}"))
            copies.extend((f"{copy}/{module}", _copied(module, body, packages, copy, name)) for module, body in policy)
        rewritten.append((path, "".join(pieces) + "\n" + "".join(inputs)))
    return tuple(rewritten), tuple(copies)


def _require_closed(text: _Text, place: _Place, known: frozenset[str]) -> None:
    """The value moves into a rule of its own, where the engine would take a variable for whatever fits."""
    for index in range(place.value, place.end):
        name = text.tokens[index][0]
        if text.tokens[index].lastgroup != "name" or text.tokens[index - 1][0] == ".":
            continue
        if name not in known and name.partition(".")[0] not in known:
            raise PolicyInvalid(
                f"{text.path}:{text.line(index)}: {name!r} is a variable, and the embedded engine can replace input "
                "by a constant alone; give it a rule of its own"
            )


def _aliases(text: _Text) -> frozenset[str]:
    """The names that imports bring in."""
    words = [match[0] for match in text.tokens if match.lastgroup != "space"]
    found = set()
    for index, word in enumerate(words[:-1]):
        if word == "import":
            renamed = words[index + 2 : index + 4]
            found.add(renamed[1] if renamed[:1] == ["as"] else words[index + 1].rpartition(".")[2])
    return frozenset(found)


def _places(text: _Text) -> Iterator[_Place]:
    tokens = text.tokens
    for index, match in enumerate(tokens):
        if match[0] != "with" or match.lastgroup != "name":
            continue
        following = [at for at in range(index + 1, len(tokens)) if tokens[at].lastgroup != "space"][:2]
        end = _end(tokens, following[-1] + 1) if following else index
        again = _next(tokens, end)
        if [tokens[at][0] for at in following] != ["input", "as"] or again == "with":
            raise PolicyInvalid(
                f"{text.path}:{text.line(index)}: the embedded engine can replace the whole input alone; write one "
                "`with input as …`"
            )
        yield _Place(_begin(tokens, index), index, following[-1] + 1, end)


def _begin(tokens: Sequence[re.Match[str]], index: int) -> int:
    """Where the expression before `index` begins: behind a brace, a semicolon, `if`, `not`, a bar, or a line's end."""
    depth = 0
    for at in range(index - 1, -1, -1):
        text = tokens[at][0]
        if text in _CLOSING:
            depth += 1
        elif text in _OPENING:
            if depth == 0:
                return at + 1
            depth -= 1
        elif depth == 0 and (text in (";", "|", "if") or _ends_line(tokens, at)):
            return at + 1
    return 0


def _end(tokens: Sequence[re.Match[str]], index: int) -> int:
    """Behind the value that begins there."""
    depth, begun = 0, False
    for at in range(index, len(tokens)):
        text = tokens[at][0]
        if depth == 0 and (text in _CLOSING or text in (";", "with") or (begun and _ends_line(tokens, at))):
            return at
        depth += (text in _OPENING) - (text in _CLOSING)
        begun = begun or tokens[at].lastgroup != "space"
    return len(tokens)


def _ends_line(tokens: Sequence[re.Match[str]], at: int) -> bool:
    """Whether a statement may end at this space."""
    if tokens[at].lastgroup != "space" or "\n" not in tokens[at][0]:
        return False
    before = next((tokens[way][0] for way in range(at - 1, -1, -1) if tokens[way].lastgroup != "space"), "")
    return before not in CONTINUING


def _next(tokens: Sequence[re.Match[str]], index: int) -> str:
    return next((match[0] for match in tokens[index:] if match.lastgroup != "space"), "")


def _moved(text: _Text, index: int, packages: frozenset[tuple[str, ...]], copy: str) -> str:
    """The token, and if it begins a path into the policy, the same path into its copy."""
    match = text.tokens[index]
    parts = tuple(match[0].split("."))
    if match.lastgroup != "name" or parts[0] != "data" or (index and text.tokens[index - 1][0] == "."):
        return match[0]
    path = parts[1:]
    if not path:
        raise PolicyInvalid(f"{text.path}:{text.line(index)}: `data` needs a name behind a dot here: data.sandboxd")
    if any(path[: len(name)] == name or name[: len(path)] == path for name in packages):
        return ".".join(("data", copy, *path))
    return match[0]


def _copied(path: str, source: str, packages: frozenset[tuple[str, ...]], copy: str, name: str) -> str:
    text = _Text(path, tuple(TOKEN.finditer(source)))
    pieces = []
    package_seen = False
    for index, match in enumerate(text.tokens):
        piece = _moved(text, index, packages, copy)
        after_package = _previous(text.tokens, index) == "package"
        after_dot = index > 0 and text.tokens[index - 1][0] == "."
        if match.lastgroup == "name" and after_package and not package_seen:
            piece, package_seen = f"{copy}.{match[0]}", True
        elif match.lastgroup == "name" and not after_dot and (match[0] == "input" or match[0].startswith("input.")):
            piece = name + match[0].removeprefix("input")
        pieces.append(piece)
    return "".join(pieces)


def _previous(tokens: Sequence[re.Match[str]], index: int) -> str:
    return next((tokens[at][0] for at in range(index - 1, -1, -1) if tokens[at].lastgroup != "space"), "")
