"""Whether decisions of a bundle can depend on more than what is asked: on the moment, or on what happened before.

Errs to that side: whatever cannot be followed by reading (the whole input, a computed key) counts as everything. No
function that the embedded engine is proven on has another source of change. Called by `policy.rego`.
"""

from collections.abc import Sequence

from sandboxd.policy.rego_builtins import TOKEN

# Parts of the input that are the same whenever the same is asked.
_LASTING = ("input.action.", "input.caller.", "input.profile.", "input.sandbox.runtime.", "input.node.",
            "input.api_version.")  # fmt: skip


def reads_the_moment(modules: Sequence[tuple[str, str]]) -> bool:
    return any(_reads_the_moment(source) for _, source in modules)


def _reads_the_moment(source: str) -> bool:
    for match in TOKEN.finditer(source):
        if match.lastgroup == "name":
            if match[0].partition(".")[0] == "input" and not f"{match[0]}.".startswith(_LASTING):
                return True
        elif match[0] == "$":  # a template string, whose expressions are not looked into
            return True
    return False
