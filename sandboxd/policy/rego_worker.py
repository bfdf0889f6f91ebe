"""The process in which Rego is evaluated: its regular expressions backtrack without bound and some policies abort it.

Imports nothing of sandboxd, holds no secret, has an empty environment; the daemon kills it when it is late. Started by
`policy.rego` as a script with its end of a socket pair and its parent's pid. Frames: 4 bytes length, 1 byte kind, body.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys

from regopy import Bundle, Interpreter, RegoError

HEADER = struct.Struct(">IB")
LOAD, ASK = 1, 2
ANSWER, UNDEFINED, FAILED = 1, 2, 3
ADDRESS_SPACE_BYTES = 1 << 30
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def main(descriptor: int, parent: int) -> None:
    _confine(parent)
    with socket.socket(fileno=descriptor) as sock, sock.makefile("rb") as requests:
        engine: _Engine | None = None
        while header := requests.read(HEADER.size):
            length, kind = HEADER.unpack(header)
            body = requests.read(length)
            if kind == LOAD:
                engine, status, text = _load(body)
            elif engine is None:
                status, text = FAILED, "no policy is loaded"
            else:
                status, text = engine.ask(body)
            answer = text.encode("utf-8", "backslashreplace")
            sock.sendall(HEADER.pack(len(answer), status) + answer)


def _confine(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_DUMPABLE, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the daemon died before the signal was armed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the daemon
    for kind, limit in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
    ):
        resource.setrlimit(kind, (limit, limit))


class _Engine:
    """One compiled bundle and the one interpreter that may run it."""

    def __init__(self, interpreter: Interpreter, bundle: Bundle, entrypoint: str) -> None:
        self._interpreter = interpreter
        self._bundle = bundle
        self._entrypoint = entrypoint

    def ask(self, document: bytes) -> tuple[int, str]:
        try:
            self._interpreter.set_input_term(document.decode())
            output = self._interpreter.query_bundle_entrypoint(self._bundle, self._entrypoint)
            if not output.ok():
                return FAILED, "a built-in function failed, or rules conflict"
            if str(output) == "undefined":
                return UNDEFINED, ""
            return ANSWER, str(output)
        except (RegoError, ValueError) as error:
            # ValueError: rego-cpp printed an answer that is not JSON.
            return FAILED, f"{type(error).__name__}: {error}"


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
