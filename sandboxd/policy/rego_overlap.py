"""Refuses, before it is compiled, a policy whose rules and data files define the same place of `data`.

OPA refuses it too; rego-cpp silently takes the value from the data file, so that a `data.json` with
`{"sandboxd": {"decision": true}}` would be the answer to everything. Called by `policy.rego`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_builtins import KEYWORDS, TOKEN, package

_NO_RULES = KEYWORDS | {"data", "false", "input", "null", "true"}


def check_overlap(modules: Sequence[tuple[str, str]], data_json: str) -> None:
    """PolicyInvalid naming file, line and place of the first rule that a data file would stand in for."""
    data = json.loads(data_json, parse_int=str, parse_float=str)
    for path, source in modules:
        place = package(source)
        beside = _below(path, data, place)
        for name, line in _names(source):
            if name in beside:
                raise PolicyInvalid(
                    f"{path}:{line}: a data file defines data.{'.'.join((*place, name))}, too, and the engine would "
                    "take that for the answer; give one of them another name"
                )


def _below(path: str, data: dict[str, object], place: tuple[str, ...]) -> Mapping[str, object]:
    """What data files define beside the rules of the package `place`."""
    for depth, part in enumerate(place, 1):
        inner = data.get(part, {})
        if not isinstance(inner, dict):
            raise PolicyInvalid(
                f"{path}: a data file gives data.{'.'.join(place[:depth])} a value, and nothing of package "
                f"{'.'.join(place)} would be there; give one of them another name"
            )
        data = inner
    return data


def _names(source: str) -> Iterator[tuple[str, int]]:
    """The first part of every name outside of brackets, and its line: each name of a rule is among them."""
    depth = 0
    for token in TOKEN.finditer(source):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        name = token[0].partition(".")[0]
        if token.lastgroup == "name" and depth == 0 and name not in _NO_RULES:
            yield name, source.count("\n", 0, token.start()) + 1
