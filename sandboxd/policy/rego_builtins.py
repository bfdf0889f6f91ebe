"""Refuses, before it is compiled, a policy that calls a built-in function which the embedded engine is not proven on.

rego-cpp accepts calls to functions it does not have and leaves them undefined, so a deny rule on one never fires.
Never widens by itself: a name joins PROVEN with the test that proves it. Called by `policy.rego`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sandboxd.errors import PolicyInvalid

# Left out on purpose. rego-cpp keeps strings in their JSON escaped form, and what cuts or measures one sees the
# escapes of a quote, a backslash or a control character: substring, indexof, upper, hashes, base64, replace, every
# trim. `count` of a string has the same fault but is needed for collections; `contains` and its kin only where a
# pattern begins within an escape. It orders numbers by their text (min([10, 9]) is 10): min, max, sort. Beyond 2^63
# it wraps: ceil, floor, round. to_number takes " 5" for a number and cannot read "08". object.union merges the first
# level only, where the reference merges all.
PROVEN = frozenset({
    "abs", "array.concat", "array.reverse", "array.slice", "concat", "contains", "count", "endswith", "glob.match",
    "intersection", "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "lower",
    "numbers.range", "object.filter", "object.get", "object.keys", "object.remove", "product", "regex.match", "split",
    "sprintf", "startswith", "strings.any_prefix_match", "strings.any_suffix_match", "sum", "type_name", "union",
})  # fmt: skip
# Patterns match bytes of the escaped form: "\\s" no tab, "." half of an "é". A policy that uses one of these is not
# asked about an input in which that makes a difference.
MEETS_ESCAPES = frozenset({"glob.match", "regex.match"})

# Words that may stand before a parenthesis without calling anything.
KEYWORDS = frozenset(
    {"as", "contains", "default", "else", "every", "if", "import", "in", "not", "package", "some", "with"}
)
# After one of these the statement goes on, on the next line too.
CONTINUING = (KEYWORDS - {"default"}) | frozenset(":=<>!+-*/%&|,.")
TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    line: int
    is_head: bool  # outside of brackets, at the start of a line and of a statement: a function's own definition


@dataclass(frozen=True, slots=True)
class _Module:
    path: str
    package: str
    aliases: frozenset[str]  # under which functions of other packages of the bundle are called
    calls: tuple[_Call, ...]
    replaced: tuple[tuple[str, int], ...]  # by `with`, and the line
    templates: tuple[int, ...]  # lines of template strings


def check_calls(modules: Sequence[tuple[str, str]]) -> None:
    """PolicyInvalid naming file, line and function of the first call to anything but PROVEN and the bundle's own.

    `with` may replace parts of the input alone: it could put a function that is not proven in the place of one that is.
    A template string could hide a call.
    """
    read = [_read(path, source) for path, source in modules]
    own = {(module.package, call.name) for module in read for call in module.calls if call.is_head}
    for module in read:
        if module.templates:
            raise PolicyInvalid(
                f"{module.path}:{module.templates[0]}: a template string, whose expressions are not looked into; use "
                "sprintf, or the opa engine for this policy"
            )
        for call in module.calls:
            if not (
                call.name in PROVEN
                or (module.package, call.name) in own
                or call.name.partition(".")[0] in module.aliases
            ):
                raise PolicyInvalid(
                    f"{module.path}:{call.line}: {call.name!r} is not a function that the embedded engine is proven "
                    "on; use the opa engine for this policy, or another function"
                )
        for name, line in module.replaced:
            if name.partition(".")[0] != "input":
                raise PolicyInvalid(
                    f"{module.path}:{line}: 'with' replaces {name!r}, which may be a function; replace parts of the "
                    "input alone, or use the opa engine for this policy"
                )


def calls_any(modules: Sequence[tuple[str, str]], names: frozenset[str]) -> bool:
    """Whether one of them is called anywhere, by a definition of the bundle's own too."""
    return any(call.name in names for path, source in modules for call in _read(path, source).calls)


def _read(path: str, source: str) -> _Module:
    tokens = [match for match in TOKEN.finditer(source) if match.lastgroup != "space"]
    texts = [token[0] for token in tokens]
    package, aliases, replaced = "", {"data"}, []
    for index, (text, following) in enumerate(pairwise([*texts, ""])):
        if text == "package" and not package:
            package = "".join(_path(texts[index + 1 :]))
        elif text == "import" and following.startswith("data."):
            _, after, name, *_ = (*texts[index + 1 : index + 4], "", "", "")
            if after == "as":
                aliases.add(name)
            elif after not in (".", "["):  # as it goes on there, it has another name
                aliases.add(following.rpartition(".")[2])
        elif text == "with":
            replaced.append((following, source.count("\n", 0, tokens[index].start()) + 1))
    templates = tuple(source.count("\n", 0, token.start()) + 1 for token in tokens if token[0] == "$")
    return _Module(path, package, frozenset(aliases), tuple(_calls(source, tokens)), tuple(replaced), templates)


def package(source: str) -> tuple[str, ...]:
    """The path of a module's package below `data`, empty if it names none."""
    texts = [match[0] for match in TOKEN.finditer(source) if match.lastgroup != "space"]
    if texts[:1] != ["package"]:
        return ()
    parts = [text for text in _path(texts[1:]) if text not in (".", "[", "]")]
    return tuple(part for text in parts for part in ([text[1:-1]] if text[0] in '"`' else text.split(".")))


def _path(texts: Sequence[str]) -> Iterator[str]:
    """A name and whatever of `["x"]` and `.y` follows it."""
    previous = "."
    for text in texts:
        if not (previous in (".", "[") or text in (".", "[", "]")):
            return
        yield text
        previous = text


def _calls(source: str, tokens: Sequence[re.Match[str]]) -> Iterator[_Call]:
    """Whatever stands before a parenthesis; a bracketed name (`http["send"](…)`) is given as `]`, and one that goes on
    behind a space (`time .now_ns(…)`) begins with a dot."""
    depth = 0
    previous, line, starts_line, last = "", 1, False, ""
    for match in tokens:
        text = match[0]
        if text == "(" and previous and previous not in KEYWORDS:
            yield _Call(previous, line, is_head=depth == 0 and starts_line)
        if text in "([{":
            depth += 1
        elif text in ")]}":
            depth -= 1
        if match.lastgroup == "name":
            line = source.count("\n", 0, match.start()) + 1
            starts_line = match.start() == 0 or source[match.start() - 1] == "\n" or previous == "default"
            starts_line = starts_line and last not in CONTINUING
            previous = f".{text}" if last == "." else text
        else:
            previous = "]" if text == "]" else ""
        last = text
