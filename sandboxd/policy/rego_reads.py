"""Whether decisions of a bundle can depend on more than what is asked: on the moment, or on what happened before.

Errs to that side: whatever cannot be followed by reading (the whole input, a computed key) counts as everything. No
function that the embedded engine is proven on has another source of change. Called by `policy.rego`.
"""

from collections.abc import Sequence

from sandboxd.policy.document import HISTORY, MOMENT
from sandboxd.policy.rego_builtins import TOKEN

_CHANGING = tuple(".".join(("input", *path, "")) for path in (*MOMENT, *HISTORY))


def reads_the_moment(modules: Sequence[tuple[str, str]]) -> bool:
    return any(_reads_the_moment(source) for _, source in modules)


def _reads_the_moment(source: str) -> bool:
    for match in TOKEN.finditer(source):
        if match.lastgroup == "name":
            read = f"{match[0]}."
            if any(read.startswith(changing) or changing.startswith(read) for changing in _CHANGING):
                return True
        elif match[0] == "$":  # a template string, whose expressions are not looked into
            return True
    return False
