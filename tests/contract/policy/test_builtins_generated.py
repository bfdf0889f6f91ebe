"""Every function that a policy may call, on generated arguments: the embedded engine and the real OPA say the same.

Arguments come from an input, as in life. Texts are plain (no quote, backslash or control character) and numbers exact
in a float, since outside of that the two differ and the guards of the embedded engine say so.
"""

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from regopy import Interpreter

from sandboxd.policy.rego_builtins import MEETS_ESCAPES, PROVEN
from tests.opa import need_opa

OF_EACH = 40
NUMBERS = (0, 1, -1, 2, 3, 9, 10, 11, 99, 100, -10, -9, 1000000, 2147483648, 4294967296, 1.5, 0.5, -0.5, 2.5, 10.25)
TEXTS = ("", "a", "b", "ab", "abc", "aXbX", "A", "a b", " a ", "10", "9", "a,b,c", "/usr/bin/python3", "a.b.c", "null")
PATTERNS = ("^a", "b$", "^[0-9]+$", "a.c", "[0-9]+", "(a|b)+", "^$", "[^a]", "^.{2}$", "[.]")
GLOBS = ("*", "**", "a*", "*.c", "a?c", "[ab]", "{a,b}*", "/usr/*/python3", "/usr/**")
OPERATORS = ("==", "!=", "<", "<=", "+", "-", "*", "in", "&", "|")
Make = Callable[[random.Random], list[object]]


def number(r: random.Random) -> object:
    return r.choice(NUMBERS)


def text(r: random.Random) -> str:
    return r.choice(TEXTS)


def scalar(r: random.Random) -> object:
    return r.choice([number(r), text(r), None, True, False])


def array(of: Callable[[random.Random], object]) -> Callable[[random.Random], list[object]]:
    return lambda r: [of(r) for _ in range(r.randint(0, 4))]


def object_(r: random.Random) -> dict[str, object]:
    return {text(r): scalar(r) for _ in range(r.randint(0, 3))}


def anything(r: random.Random) -> object:
    return r.choice([scalar, array(scalar), object_])(r)


def each(*makes: Callable[[random.Random], object]) -> Make:
    return lambda r: [make(r) for make in makes]


def texts_or_text(r: random.Random) -> object:
    return r.choice([text, array(text)])(r)


ARGUMENTS: dict[str, Make] = {
    "abs": each(number),
    "array.concat": each(array(scalar), array(scalar)),
    "array.reverse": each(array(scalar)),
    "array.slice": each(array(scalar), lambda r: r.randint(-2, 5), lambda r: r.randint(-2, 6)),
    "concat": each(text, array(text)),
    "contains": each(text, text),
    "count": each(lambda r: r.choice([array(scalar), object_])(r)),
    "endswith": each(text, text),
    "glob.match": each(lambda r: r.choice(GLOBS), lambda r: r.choice([["."], ["/"], [".", "/"]]), text),
    "lower": each(text),
    "numbers.range": each(lambda r: r.randint(-3, 12), lambda r: r.randint(-3, 12)),
    "object.filter": each(object_, array(text)),
    "object.get": each(object_, lambda r: r.choice([text(r), [text(r)]]), scalar),
    "object.keys": each(object_),
    "object.remove": each(object_, array(text)),
    "product": each(lambda r: [r.randint(-50, 50) for _ in range(r.randint(0, 4))]),
    "regex.match": each(lambda r: r.choice(PATTERNS), text),
    "split": each(text, lambda r: r.choice([",", "X", "/", "a", " ", "."])),
    "startswith": each(text, text),
    "strings.any_prefix_match": each(texts_or_text, texts_or_text),
    "strings.any_suffix_match": each(texts_or_text, texts_or_text),
    "sum": each(array(number)),
    **dict.fromkeys(("is_array", "is_boolean", "is_null", "is_number", "is_object", "is_string"), each(anything)),
    **dict.fromkeys(("is_set", "type_name"), each(anything)),
    **dict.fromkeys(("==", "!="), each(anything, anything)),
    **dict.fromkeys(("<", "<=", "+", "-", "*"), each(number, number)),
    "in": each(scalar, array(scalar)),
}
# Of sets, which an input has none of; and by a format, which is a policy's own.
OTHERWISE = {
    "intersection": "intersection({{x | some x in %s}, {x | some x in %s}})",
    "union": "union({{x | some x in %s}, {x | some x in %s}})",
    "&": "{x | some x in %s} & {x | some x in %s}",
    "|": "{x | some x in %s} | {x | some x in %s}",
    "sprintf": 'sprintf("%%s is %%d of %%v", [%s, %s, true])',
}
ARGUMENTS |= dict.fromkeys(("intersection", "union", "&", "|"), each(array(scalar), array(scalar)))
ARGUMENTS["sprintf"] = each(text, lambda r: r.randint(-99, 99))
UNORDERED = frozenset({"object.keys", "intersection", "union", "&", "|"})


def expression(name: str, places: list[str]) -> str:
    if name in OTHERWISE:
        return OTHERWISE[name] % tuple(places)
    return f"{places[0]} {name} {places[1]}" if name in OPERATORS else f"{name}({', '.join(places)})"


def module(name: str, cases: list[list[object]]) -> str:
    rules = []
    for number_, case in enumerate(cases):
        value = expression(name, [f"input.c{number_}[{place}]" for place in range(len(case))])
        # A condition that is false has no value, so each is asked for in an array.
        rules.append(f"r{number_} := [{value}]")
    return "package p\n\nimport rego.v1\n\n" + "\n\n".join(rules) + "\n"


def comparable(name: str, value: object) -> object:
    if name in UNORDERED and isinstance(value, list):
        return [sorted(json.dumps(item) for item in value[0])]
    return value


def by_opa(opa: str, directory: Path, source: str, document: str) -> dict[str, object]:
    (directory / "m.rego").write_text(source)
    (directory / "input.json").write_text(document)
    command = [opa, "eval", "-d", str(directory / "m.rego"), "-i", str(directory / "input.json"), "-fjson", "data.p"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)["result"][0]["expressions"][0]["value"]
    return found


def by_rego_cpp(source: str, document: str, rule: str) -> object:
    interpreter = Interpreter()
    interpreter.strict_built_in_errors = True
    interpreter.add_module("m.rego", source)
    bundle = interpreter.build(None, [f"p/{rule}"])
    interpreter.set_input_term(document)
    printed = str(interpreter.query_bundle_entrypoint(bundle, f"p/{rule}"))
    return json.loads(printed)["expressions"][0] if printed.startswith('{"expressions"') else "no value"


def test_there_are_arguments_for_every_function() -> None:
    assert ARGUMENTS.keys() - set(OPERATORS) == PROVEN
    assert MEETS_ESCAPES < PROVEN


@pytest.mark.parametrize("name", ARGUMENTS)
def test_embedded_engine_answers_as_opa_does(name: str, tmp_path: Path) -> None:
    opa = need_opa()
    r = random.Random(name)
    cases = [ARGUMENTS[name](r) for _ in range(OF_EACH)]
    document = json.dumps({f"c{number_}": case for number_, case in enumerate(cases)})
    reference = by_opa(opa, tmp_path, module(name, cases), document)
    assert len(reference) > OF_EACH // 4, "most of the arguments are none for it"
    for number_, case in enumerate(cases):
        rule = f"r{number_}"
        source = module(name, cases[: number_ + 1]).split("\n\n")
        alone = "\n\n".join([*source[:2], source[-1]])
        got = comparable(name, by_rego_cpp(alone, document, rule))
        assert got == comparable(name, reference.get(rule, "no value")), (name, case)
