"""Refuses, before it is compiled, a policy with text that the embedded engine would not find in an input.

rego-cpp keeps text as it is written in JSON and compares that, so "\\u00e9" in a rule is not the "é" of an input, and a
deny rule on it never fires. Each character has one form that is the input's too. Called by `policy.rego`.
"""

import json
import re
from collections.abc import Sequence
from json.encoder import encode_basestring

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_builtins import TOKEN

_ESCAPE = re.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^u])")


def check_literals(modules: Sequence[tuple[str, str]]) -> None:
    """PolicyInvalid naming file, line and escape of the first that has another form in an input."""
    for path, source in modules:
        for token in TOKEN.finditer(source):
            if token.lastgroup != "string" or token[0].startswith("`"):
                continue
            for escape in _ESCAPE.findall(token[0]):
                written = _as_in_an_input(escape)
                if written != escape:
                    line = source.count("\n", 0, token.start()) + 1
                    raise PolicyInvalid(
                        f"{path}:{line}: the embedded engine compares text as it is written, and an input never has "
                        f"{escape}; write {written}"
                    )


def _as_in_an_input(escape: str) -> str:
    try:
        return encode_basestring(json.loads(f'"{escape}"'))[1:-1]
    except ValueError:
        return "a character that JSON knows"
