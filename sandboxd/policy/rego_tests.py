"""Runs a bundle's own Rego tests in the embedded engine: rules named `test_…` in files named `*_test.rego`.

Never in the daemon. Called by the command `sandboxctl policy test`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_bundle import Bundle
from sandboxd.policy.rego_rules import Rule, rules, true
from sandboxd.policy.rego_with import expand

TEST = "test_"


@dataclass(frozen=True, slots=True)
class TestResult:
    """`why` it failed, where there is more to say than that it is not true."""

    __test__ = False  # for pytest, which takes it for a class of tests

    path: str
    line: int
    name: str
    passed: bool
    why: str = ""


def run_tests(bundle: Bundle) -> tuple[TestResult, ...]:
    """In the order of the files. `bundle` was read with its tests."""
    tests = _first_of_each(rule for rule in rules(bundle.tests) if rule.name.startswith(TEST))
    holders = {test.path for test in tests}
    results: list[TestResult] = []
    for path, group in groupby(tests, key=lambda test: test.path):
        modules = [(name, source) for name, source in bundle.tests if name == path or name not in holders]
        results.extend(_file(bundle, modules, list(group)))
    return tuple(results)


def _file(bundle: Bundle, modules: Sequence[tuple[str, str]], tests: Sequence[Rule]) -> Iterator[TestResult]:
    """What the engine cannot evaluate costs only the tests of its own file their result."""
    try:
        expanded, copies = expand(bundle.modules, modules)
        names = {test.full_name: (*test.package, test.name) for test in tests}
        passed = true([*bundle.modules, *expanded, *copies], bundle.data_json, names)
    except PolicyInvalid as error:
        yield from (TestResult(test.path, test.line, test.full_name, False, error.message) for test in tests)
        return
    for test in tests:
        yield TestResult(test.path, test.line, test.full_name, test.full_name in passed)


def _first_of_each(found: Iterable[Rule]) -> list[Rule]:
    """Of several definitions by one name, which are one test, the first."""
    first: dict[str, Rule] = {}
    for rule in found:
        first.setdefault(rule.full_name, rule)
    return list(first.values())
