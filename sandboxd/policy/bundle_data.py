"""Reads the structured files of a bundle (`data.json`, `data.yaml`, `.manifest`) and hashes them as a signature does.

Never takes a text that two readers could take for two things: a repeated key, a YAML alias, a word that is a boolean
in one YAML and a string in the other. Called by `rego_bundle` and `bundle_signature`.
"""

import hashlib
import json
import math
import warnings
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MantissaNoDotYAML1_1Warning, MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from sandboxd.errors import PolicyInvalid

_INT64 = 1 << 63
_DEEPEST = 64
_LONGEST_NUMBER = 400  # characters; the largest double has 309 digits


class Number(str):
    """A number as it is written in JSON: a signature covers that text, and no precision is lost on the way."""

    __slots__ = ()


def parse(name: str, content: bytes) -> object:
    """What the file says: dict, list, str, `Number`, bool or None. PolicyInvalid naming the file, if nothing clear."""
    return _yaml(name, content) if name.endswith((".yaml", ".yml")) else _json(name, content)


def plain(value: object) -> Any:
    """The same with Python's own numbers."""
    match value:
        case Number():
            return json.loads(value)
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case _:
            return value


def as_json(value: object) -> str:
    """JSON text, each number as it was written. Not ASCII: rego-cpp compares strings as they are written."""
    match value:
        case Number():
            return str(value)
        case dict():
            return "{" + ", ".join(f"{_text(key)}: {as_json(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(as_json, value)) + "]"
        case _:
            return _text(value)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def sha256(value: object) -> str:
    """Of the canonical text: keys in order, no space (https://www.openpolicyagent.org/docs/management-bundles#signing)."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _canonical(value: object) -> str:
    match value:
        case Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{_quoted(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
        case list():
            return "[" + ",".join(map(_canonical, value)) + "]"
        case str():
            return _quoted(value)
        case _:
            return json.dumps(value)


def _quoted(text: str) -> str:
    """As Go's encoder writes it: like Python's, but for two separators and the byte 0x7f, which both leave as it is."""
    return _text(text).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _json(name: str, content: bytes) -> object:
    try:
        value = json.loads(
            content.decode(),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )
        _check(value)
    except (ValueError, RecursionError) as error:
        raise PolicyInvalid(f"{name}: not JSON: {error}") from error
    return value


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no value")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _yaml(name: str, content: bytes) -> object:
    try:
        text = content.decode()
        if any(isinstance(event, AliasEvent) for event in YAML(typ="safe", pure=True).parse(text)):
            raise PolicyInvalid(f"{name}: has an alias; write the value itself there")
        with warnings.catch_warnings():
            warnings.simplefilter("error", MantissaNoDotYAML1_1Warning)
            one, two = (_load(text, version) for version in ((1, 1), (1, 2)))
        if repr(one) != repr(two):  # True is 1 to `==`
            raise PolicyInvalid(f"{name}: means one thing in YAML 1.1 and another in 1.2; quote its words and numbers")
        value = _from_yaml(two)
        _check(value)
    except MantissaNoDotYAML1_1Warning as error:
        raise PolicyInvalid(f"{name}: has a float without a dot, a word in YAML 1.1; write 1.0e+3 for 1e+3") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise PolicyInvalid(f"{name}:{line}: {(error.problem or 'not YAML').splitlines()[0]}") from error
    except (YAMLError, ValueError, RecursionError, AssertionError, AttributeError, TypeError, LookupError) as error:
        # ruamel leaks such errors for odd keys, tags and directives; each means that this is no data
        raise PolicyInvalid(f"{name}: not YAML: {str(error)[:200]!r}; write plain keys and values") from error
    return value


def _load(text: str, version: tuple[int, int]) -> object:
    loader = YAML(typ="safe", pure=True)
    loader.version = version
    loader.allow_duplicate_keys = False
    return loader.load(text)


def _from_yaml(value: object) -> object:
    """As JSON would have it."""
    match value:
        case dict():
            if odd := [key for key in value if not isinstance(key, str)]:
                raise ValueError(f"key {odd[0]!r} is not a string; quote it")
            return {key: _from_yaml(item) for key, item in value.items()}
        case list():
            return [_from_yaml(item) for item in value]
        case bool() | None | str():
            return value
        case int():
            if not -_INT64 <= value < _INT64:
                raise ValueError(f"{value} needs more than 64 bits; write it in data.json")
            return Number(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} is no number of JSON")
            return Number(_go_float(value))
        case _:
            raise ValueError(f"{value!r} is a {type(value).__name__}, which JSON does not have; quote it")


def _go_float(value: float) -> str:
    """As Go's encoder writes it: the shortest digits, an exponent below 1e-6 and from 1e21 on."""
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = repr(value).partition("e")
    sign, digits = exponent[0], exponent[1:].lstrip("0")
    return f"{mantissa.removesuffix('.0')}e{sign}{digits.rjust(2, '0') if sign == '+' else digits}"


def _check(value: object, depth: int = 0) -> None:
    """What no canonical text could be made of, or no reader need take."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested deeper than {_DEEPEST}")
    match value:
        case dict():
            for key, item in value.items():
                _check(key)
                _check(item, depth + 1)
        case list():
            for item in value:
                _check(item, depth + 1)
        case Number():
            if len(value) > _LONGEST_NUMBER:
                raise ValueError(f"a number has {len(value)} characters, over {_LONGEST_NUMBER}")
        case str():
            value.encode()  # a lone surrogate is no text, and UnicodeEncodeError is a ValueError
        case _:
            pass
