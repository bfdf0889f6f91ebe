"""The process in which Rego is evaluated: its regular expressions backtrack without bound and some policies abort it.

Imports nothing of sandboxd but `host.confined`, where stands what holds for it. Started by `policy.rego` as a script
with its end of a socket pair and its parent's pid.
"""

import ctypes
import json
import re
import sys
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

from regopy import Bundle, Interpreter, RegoError, rego_shared

from sandboxd.host.confined import ANSWER, FAILED, LOAD, UNDEFINED, give_up_system_calls, serve

_INT64 = 1 << 63
# What every kind of value and every escape looks like, to see that both ways of handing over an input agree.
_PROBE = '{"a":["\\"\\\\\\n\\u0000é😀",1.5,30.0,-7,9007199254740993,true,false,null,{"k\\"":[]},{}],"":""}'


def main(descriptor: int, parent: int) -> None:
    engine: _Engine | None = None

    def answer(kind: int, body: bytes) -> tuple[int, str]:
        nonlocal engine
        if kind == LOAD:
            _rehearse()
            give_up_system_calls()
            engine, status, text = _load(body)
            return status, text
        return (FAILED, "no policy is loaded") if engine is None else engine.ask(body)

    serve(descriptor, parent, answer)


class _Engine:
    """One compiled bundle and the one interpreter that may run it."""

    def __init__(self, interpreter: Interpreter, bundle: Bundle, entrypoint: str) -> None:
        self._interpreter = interpreter
        self._bundle = bundle
        self._entrypoint = entrypoint
        self._input = _fast_input(interpreter)

    def ask(self, document: bytes) -> tuple[int, str]:
        try:
            if self._input is None or not self._input.set(json.loads(document)):
                self._interpreter.set_input_term(document.decode())
            output = self._interpreter.query_bundle_entrypoint(self._bundle, self._entrypoint)
            if not output.ok():
                return FAILED, "a built-in function failed, or rules conflict"
            text = str(output)
            return (UNDEFINED, "") if text == "undefined" else (ANSWER, text)
        except (RegoError, ValueError, RecursionError) as error:
            # ValueError: rego-cpp printed an answer that is not JSON.
            return FAILED, _said(error) or f"{type(error).__name__}: {error}"


def _said(error: Exception) -> str:
    """What rego-cpp gave as the reason, in the tree that it prints where it has no answer."""
    printed = error.doc if isinstance(error, json.JSONDecodeError) else ""
    found = re.search(r"^\(error\s+\(errormsg \d+:([^)]*)\)", printed)
    return f"rego-cpp gave no answer: {found[1]}" if found else ""


class _Input:
    """Builds the input value by value through rego-cpp's C interface: a third of the time of having it parse text.

    `Interpreter.set_input` does the same but hands strings over raw, where rego-cpp keeps them in their JSON escaped
    form: so it cuts them at NUL and breaks on quotes. Here they are escaped first.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        # A handle of our own: argument types are declared on it, and regopy's stay as they are.
        library = ctypes.CDLL(rego_shared.rego._name)
        pointer = ctypes.c_void_p
        self._new = _function(library.regoNewInput, pointer)
        self._free = _function(library.regoFreeInput, ctypes.c_int, pointer)
        self._set = _function(library.regoSetInput, ctypes.c_int, pointer, pointer)
        self._string = _function(library.regoInputString, ctypes.c_int, pointer, ctypes.c_char_p)
        self._integer = _function(library.regoInputInt, ctypes.c_int, pointer, ctypes.c_int64)
        self._float = _function(library.regoInputFloat, ctypes.c_int, pointer, ctypes.c_double)
        self._boolean = _function(library.regoInputBoolean, ctypes.c_int, pointer, ctypes.c_int)
        self._null = _function(library.regoInputNull, ctypes.c_int, pointer)
        self._item = _function(library.regoInputObjectItem, ctypes.c_int, pointer)
        self._object = _function(library.regoInputObject, ctypes.c_int, pointer, ctypes.c_size_t)
        self._array = _function(library.regoInputArray, ctypes.c_int, pointer, ctypes.c_size_t)

    def set(self, value: object) -> bool:
        """False if it has to be handed over as text."""
        target = self._new()
        try:
            return self._add(target, value) == 0 and self._set(self._interpreter._impl, target) == 0
        finally:
            self._free(target)

    def _add(self, target: object, value: Any) -> int:
        """0, or what the library or we have against it. By exact type, most frequent first: this is the hot path."""
        kind = type(value)
        if kind is str:
            return int(self._string(target, encode_basestring(value)[1:-1].encode()))
        if kind is int:
            return int(self._integer(target, value)) if -_INT64 <= value < _INT64 else 1
        if kind is dict:
            failed = 0
            for key, item in value.items():
                failed |= self._add(target, key) | self._add(target, item) | self._item(target)
            return failed | int(self._object(target, len(value)))
        if kind is list:
            failed = 0
            for item in value:
                failed |= self._add(target, item)
            return failed | int(self._array(target, len(value)))
        if kind is float:
            # The library writes it with six decimals, so one that has more goes as text.
            return int(self._float(target, value)) if float(f"{value:f}") == value else 1
        if kind is bool:
            return int(self._boolean(target, value))
        return int(self._null(target)) if value is None else 1


def _function(function: Any, result: Any, *arguments: Any) -> Callable[..., Any]:
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


def _fast_input(interpreter: Interpreter) -> _Input | None:
    """None unless this version of the library takes a value built so for the same as its text."""
    try:
        built = _Input(interpreter)
    except AttributeError:
        return None
    probe = Interpreter()
    probe.add_module("probe.rego", "package probe\nvalue := input\n")
    bundle = probe.build(None, ["probe/value"])
    probe.set_input_term(_PROBE)
    expected = str(probe.query_bundle_entrypoint(bundle, "probe/value"))
    agrees = _Input(probe).set(json.loads(_PROBE))
    return built if agrees and str(probe.query_bundle_entrypoint(bundle, "probe/value")) == expected else None


def _rehearse() -> None:
    """All that a bundle will need is imported and opened from then on. Only this policy is ever seen unconfined."""
    simplest = {"modules": [["p.rego", "package p\na := input\n"]], "data": "{}", "entrypoint": "p/a"}
    engine, _, message = _load(json.dumps(simplest).encode())
    if engine is None or engine.ask(b"[0.1, 7]") != (ANSWER, '{"expressions":[[0.1,7]]}'):
        raise RuntimeError(f"the library does not answer the simplest question {message}")


def _load(body: bytes) -> tuple[_Engine | None, int, str]:
    request = json.loads(body)
    interpreter = Interpreter()
    interpreter.strict_built_in_errors = True
    try:
        for path, source in request["modules"]:
            interpreter.add_module(path, source)
        interpreter.add_data_json(request["data"])
        bundle = interpreter.build(None, [request["entrypoint"]])
    except RegoError as error:
        return None, FAILED, str(error)
    if not bundle.ok():
        return None, FAILED, "the policy does not compile"
    return _Engine(interpreter, bundle, request["entrypoint"]), ANSWER, ""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
