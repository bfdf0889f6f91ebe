"""Refuses, before it is compiled, a policy with patterns that the embedded engine and OPA read differently.

rego-cpp takes `\\z` and `\\pL` for letters and `[]a]` for an empty class, so a deny rule on one never fires; OPA has no
`(?=a)`. What remains matches alike in both. Where a pattern comes from cannot be followed, so with a call of
`regex.match` every text of the policy and its data counts as one. Called by `policy.rego`.
"""

import json
import re
from collections.abc import Iterator, Sequence

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_builtins import TOKEN, calls_any

_REGEX = frozenset({"regex.match"})
# Each escape, as a whole; and what means something else, or nothing, behind an opening bracket.
_SPECIAL = re.compile(r"\\(?P<escaped>.)|(?P<odd>\(\?(?!:)|\[\^?\])", re.DOTALL)
_SAME = re.compile(r"[dDwWsSbBfnrtv]|[^A-Za-z0-9]")
# In a glob, the range that is excluded by this sign instead of `!`.
_GLOB_RANGE = re.compile(r"\[\^[^\]]*-[^\]]*\]")


def check_patterns(modules: Sequence[tuple[str, str]], data_json: str) -> None:
    """PolicyInvalid naming the place and what is odd of the first such pattern."""
    matches = calls_any(modules, _REGEX)
    for path, source in modules:
        for offset, text, is_glob in _texts(source):
            odd = _odd_glob(text) if is_glob else _odd_regex(text) if matches else ""
            if odd:
                raise _refusal(f"{path}:{source.count(chr(10), 0, offset) + 1}", odd)
    if matches:
        for text in _strings(json.loads(data_json, parse_int=str, parse_float=str)):
            if odd := _odd_regex(text):
                raise _refusal("data", odd)


def _refusal(where: str, odd: str) -> PolicyInvalid:
    return PolicyInvalid(
        f"{where}: {odd!r} in a pattern is another thing in the embedded engine than in OPA; write the pattern "
        "otherwise, or use the opa engine for this policy"
    )


def _texts(source: str) -> Iterator[tuple[int, str, bool]]:
    """Each literal text: where, what it says, and whether it is the pattern of a glob."""
    last: list[str] = []
    for token in TOKEN.finditer(source):
        if token.lastgroup == "space":
            continue
        if token.lastgroup == "string":
            yield token.start(), _said(token[0]), last[-2:] == ["glob.match", "("]
        last = [*last[-1:], token[0]]


def _said(literal: str) -> str:
    try:
        return literal[1:-1] if literal.startswith("`") else str(json.loads(literal))
    except ValueError:
        return ""  # no text: the compiler refuses it


def _odd_regex(pattern: str) -> str:
    for special in _SPECIAL.finditer(pattern):
        if special["odd"] or not _SAME.fullmatch(special["escaped"]):
            return special[0]
    return ""


def _odd_glob(pattern: str) -> str:
    found = _GLOB_RANGE.search(pattern)
    return found[0] if found else ""


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from _strings(item)
        case list():
            for item in value:
                yield from _strings(item)
        case _:
            return
