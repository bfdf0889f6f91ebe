"""Refuses, before it is compiled, a `not` that the embedded engine and OPA answer differently.

Where a part of the input is missing, `not startswith(input.a, "x")` holds in rego-cpp; in OPA, which looks the part up
first, the whole rule is undefined. A rule would do one thing where it is tested and another where it decides. What is
alike in both: `not` before a name, before a plain reference, or before two of them compared. Called by `policy.rego`.
"""

import re
from collections.abc import Iterator, Sequence

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_builtins import TOKEN

_INPUT = re.compile(r"input(\.|$)")
_CONTINUES = frozenset({"==", "=", "in", ".", ",", *"<>!+-*/%&|"})


def check_negations(modules: Sequence[tuple[str, str]]) -> None:
    """PolicyInvalid naming file, line and expression of the first such `not`."""
    for path, source in modules:
        tokens = list(TOKEN.finditer(source))
        for index, token in enumerate(tokens):
            if token[0] != "not" or token.lastgroup != "name":
                continue
            expression = list(_expression(tokens[index + 1 :]))
            if not _alike(expression):
                line = source.count("\n", 0, token.start()) + 1
                raise PolicyInvalid(
                    f"{path}:{line}: 'not {' '.join(expression)}' is another thing in OPA where that part of the input "
                    "is missing; make it a rule of its own, `holds if …`, and write `not holds`"
                )


def _expression(tokens: Sequence[re.Match[str]]) -> Iterator[str]:
    """What `not` is about: up to the end of the line, a semicolon, the closing bracket or `with`."""
    depth, last = 0, ""
    for token in tokens:
        text = token[0]
        if token.lastgroup == "space":
            if "\n" in text and depth == 0 and last and last not in _CONTINUES:
                return
            continue
        if depth == 0 and (text in (";", "with") or text in (")", "]", "}")):
            return
        depth += (text in "([{") - (text in ")]}")
        last = text
        yield text


def _alike(expression: Sequence[str]) -> bool:
    if not any(_INPUT.match(text) for text in expression):
        return True
    compared = "".join("\0" if text == "=" else text for text in expression)
    sides = re.split("\0+", compared)
    return len(sides) <= 2 and "in" not in expression and all(map(_plain, sides))


def _plain(side: str) -> bool:
    """A reference with constant keys, or a constant."""
    return re.fullmatch(r'(-?[\w.]+|`[^`]*`|"(?:\\.|[^"\\])*")(\[("(?:\\.|[^"\\])*"|\d+)\](\.\w+)*)*', side) is not None
