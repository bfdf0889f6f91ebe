"""Finds the rules of a policy in its text, and tells which of them hold for an input: for explanations and for tests.

Each rule is evaluated as a copy under a name of its own, so that of several by one name each is told apart. Never part
of a decision. Called by the commands that look at a policy.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_builtins import CONTINUING, TOKEN, package
from sandboxd.policy.rego_process import Status, Worker, WorkerGone, WorkerLate

_COPY = "sandboxd_rule_"
_HOLDS = "sandboxd_holds"
_STATEMENTS = frozenset({"package", "import", "default"})
EMPTY_INPUT = b"{}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One definition. `source` is its text; `is_partial`: it adds to a set or an object, and may add nothing.

    `is_conditional`: it has a body, so that it holds for one input and not for another.
    """

    path: str
    line: int
    package: tuple[str, ...]
    name: str
    source: str
    is_partial: bool
    is_function: bool
    is_default: bool
    is_conditional: bool

    @property
    def full_name(self) -> str:
        return ".".join((*self.package, self.name))


def rules(modules: Sequence[tuple[str, str]]) -> tuple[Rule, ...]:
    """In the order of the text. Only what begins at the beginning of a line, as `opa fmt` has it, is seen."""
    return tuple(rule for path, source in modules for rule in _rules(path, source))


def holding(modules: Sequence[tuple[str, str]], data_json: str, document: bytes) -> tuple[Rule, ...]:
    """Of those that have a condition and are no function: the ones that hold. PolicyInvalid if that cannot be told."""
    found = [rule for rule in rules(modules) if rule.is_conditional and not rule.is_function]
    copies = dict(modules)
    for number, rule in enumerate(found):
        copies[rule.path] += f"\n{_COPY}{number}{rule.source[len(rule.name) :]}\n"
    asked = {
        str(number): _condition((*rule.package, f"{_COPY}{number}"), is_partial=rule.is_partial)
        for number, rule in enumerate(found)
    }
    held = _evaluate([*copies.items(), _module(asked)], data_json, document)
    return tuple(rule for number, rule in enumerate(found) if str(number) in held)


def true(modules: Sequence[tuple[str, str]], data_json: str, names: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The keys of those rules (by their path below `data`) that are true without an input. PolicyInvalid as above."""
    asked = {key: f"{_reference(path)} == true" for key, path in names.items()}
    return _evaluate([*modules, _module(asked)], data_json, EMPTY_INPUT)


def _rules(path: str, source: str) -> Iterator[Rule]:
    tokens = [match for match in TOKEN.finditer(source) if match.lastgroup != "space"]
    starts = _statements(source, [(match.start(), match[0], match.lastgroup == "name") for match in tokens])
    below = package(source)
    for index, first in enumerate(starts):
        end = starts[index + 1] if index + 1 < len(starts) else len(tokens)
        is_default = tokens[first][0] == "default"
        head = first + is_default
        name = tokens[head][0] if head < end else ""
        if not name or name in _STATEMENTS:
            continue
        following = tokens[head + 1][0] if head + 1 < end else ""
        yield Rule(
            path=path,
            line=source.count("\n", 0, tokens[head].start()) + 1,
            package=below,
            name=name,
            source=source[tokens[head].start() : tokens[end - 1].end()],
            is_partial=following in ("contains", "["),
            is_function=following == "(",
            is_default=is_default,
            is_conditional=any(match[0] == "if" for match in tokens[head:end]),
        )


def _statements(source: str, tokens: Sequence[tuple[int, str, bool]]) -> list[int]:
    """The indexes of the tokens that begin one."""
    found, depth, last = [], 0, ""
    for index, (start, text, is_name) in enumerate(tokens):
        at_line_start = start == 0 or source[start - 1] == "\n"
        if is_name and depth == 0 and at_line_start and last not in CONTINUING:
            found.append(index)
        depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
        last = text
    return found


def _condition(path: tuple[str, ...], *, is_partial: bool) -> str:
    """A rule holds, too, that gives false."""
    return f"value := {_reference(path)}; count(value) > 0" if is_partial else f"value := {_reference(path)}"


def _reference(path: tuple[str, ...]) -> str:
    return "data" + "".join(f"[{json.dumps(part, ensure_ascii=False)}]" for part in path)


def _module(asked: Mapping[str, str]) -> tuple[str, str]:
    lines = [f"held contains {json.dumps(key)} if {{ {condition} }}\n" for key, condition in asked.items()]
    return f"{_HOLDS}.rego", f"package {_HOLDS}\n\nimport rego.v1\n\n{''.join(lines)}"


def _evaluate(modules: Sequence[tuple[str, str]], data_json: str, document: bytes) -> frozenset[str]:
    worker = Worker.start()
    try:
        body = {"modules": modules, "data": data_json, "entrypoint": f"{_HOLDS}/held", "reads": None}
        answer = worker.load(json.dumps(body).encode())
        if answer.status is Status.ANSWER:
            answer = worker.try_out(document)
    except (WorkerGone, WorkerLate) as error:
        raise PolicyInvalid(f"the policy engine did not survive this: {error}") from error
    finally:
        worker.kill()
    match answer.status:
        case Status.UNDEFINED:
            return frozenset()
        case Status.ANSWER:
            return frozenset(json.loads(answer.text)["expressions"][0])
        case Status.FAILED:
            raise PolicyInvalid(f"it cannot be evaluated: {' '.join(answer.text.split())[:500]}")
