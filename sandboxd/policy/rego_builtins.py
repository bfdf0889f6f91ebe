"""Refuses, before it is compiled, a policy that calls a built-in function which the embedded engine is not proven on.

rego-cpp accepts calls to functions it does not have and leaves them undefined, so a deny rule on one never fires.
Never widens by itself: a name joins PROVEN with the test that proves it. Called by `policy.rego`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandboxd.errors import PolicyInvalid

# Left out on purpose, because rego-cpp keeps strings in their JSON escaped form and these see the escapes of a quote,
# a backslash or a control character: substring, indexof, upper, hashes, base64. `count` of a string has the same fault
# but is needed for collections. object.union merges the first level only, where the reference merges all.
PROVEN = frozenset({
    "abs", "array.concat", "array.reverse", "array.slice", "ceil", "concat", "contains", "count", "endswith", "floor",
    "glob.match", "intersection", "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string",
    "lower", "max", "min", "numbers.range", "object.filter", "object.get", "object.keys", "object.remove",
    "product", "regex.match", "replace", "round", "sort", "split", "sprintf", "startswith",
    "strings.any_prefix_match", "strings.any_suffix_match", "sum", "to_number", "trim", "trim_left", "trim_prefix",
    "trim_right", "trim_space", "trim_suffix", "type_name", "union",
})  # fmt: skip

# Words that may stand before a parenthesis without calling anything.
_KEYWORDS = frozenset(
    {"as", "contains", "default", "else", "every", "if", "import", "in", "not", "package", "some", "with"}
)
# After one of these the statement goes on, on the next line too.
_CONTINUING = (_KEYWORDS - {"default"}) | frozenset(":=<>!+-*/%&|,.")
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


def check_calls(modules: Sequence[tuple[str, str]]) -> None:
    """PolicyInvalid naming file, line and function of the first call to anything but PROVEN and the bundle's own."""
    calls = {path: tuple(_calls(source)) for path, source in modules}
    own = {call.name for found in calls.values() for call in found if call.is_head}
    for path, source in modules:
        aliases = _aliases(source)
        for call in calls[path]:
            if not (call.name in PROVEN or call.name in own or call.name.partition(".")[0] in aliases):
                raise PolicyInvalid(
                    f"{path}:{call.line}: {call.name!r} is not a function that the embedded engine is proven on; "
                    "use the opa engine for this policy, or another function"
                )


def _aliases(source: str) -> frozenset[str]:
    """Names under which functions of other packages of the bundle are called."""
    imports = re.finditer(r"^import\s+(data(?:\.\w+)+)(?:\s+as\s+(\w+))?", source, re.MULTILINE)
    return frozenset({"data", *(match[2] or match[1].rpartition(".")[2] for match in imports)})


def _calls(source: str) -> Iterator[_Call]:
    """Whatever stands before a parenthesis; a bracketed name (`http["send"](…)`) is given as `]`."""
    depth = 0
    previous, line, starts_line, last = "", 1, False, ""
    for match in TOKEN.finditer(source):
        text = match[0]
        if match.lastgroup == "space":
            continue
        if text == "(" and previous and previous not in _KEYWORDS:
            yield _Call(previous, line, is_head=depth == 0 and starts_line)
        if text in "([{":
            depth += 1
        elif text in ")]}":
            depth -= 1
        if match.lastgroup == "name":
            line = source.count("\n", 0, match.start()) + 1
            starts_line = match.start() == 0 or source[match.start() - 1] == "\n" or previous == "default"
            starts_line = starts_line and last not in _CONTINUING
            previous = text
        else:
            previous = "]" if text == "]" else ""
        last = text
