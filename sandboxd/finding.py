"""What static analysis may say of a piece of source: a closed vocabulary of short records, and what was measured.

Input to policy and never a verdict: source that does something without these findings is easily written, and source
that has them may never run the line in question. Explained word by word in docs/analysis.md. Made by `analysis`.
"""

from dataclasses import dataclass
from enum import StrEnum


class FindingCode(StrEnum):
    IMPORT = "import"  # detail: the module
    IMPORT_DYNAMIC = "import.dynamic"  # by a function that is given the name; detail: that function
    COMMAND = "command"  # of a shell; detail: its name
    COMMAND_ENV = "command.env"  # a variable set for one command of a shell; detail: its name
    PROCESS_START = "process.start"  # detail: the function
    SOCKET_OPEN = "socket.open"  # detail: the function or command, or `/dev/tcp`
    EVAL_STRING = "eval.string"  # text becomes code; detail: the function or command
    EVAL_DECODED = "eval.decoded"  # text that was decoded first; detail: what decodes
    EVAL_DOWNLOADED = "eval.downloaded"  # text that was fetched first; detail: what fetches
    EVAL_OBJECT = "eval.object"  # a serialised object is loaded that may bring code; detail: the function
    CALL_DYNAMIC = "call.dynamic"  # what is called is only known when it runs; detail: what looks it up
    CALL_NATIVE = "call.native"  # machine code by its address or library; detail: the function
    CREDENTIAL_PATH = "credential.path"  # detail: which of the known places
    CUT = "findings.cut"  # there are more; detail: of which code
    FAILED = "analysis.failed"  # detail: a `Failure`


class Failure(StrEnum):
    """Why source was not, or not wholly, analysed."""

    SYNTAX = "syntax"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    NOT_TEXT = "not_text"  # a NUL, or half a character
    UNKNOWN_LANGUAGE = "unknown_language"
    TIMEOUT = "timeout"
    CRASHED = "crashed"  # the analysing process died of it, or answered nonsense
    BUSY = "busy"  # too many others were before it
    UNAVAILABLE = "unavailable"  # there is no process to analyse it


@dataclass(frozen=True, slots=True)
class Finding:
    """What static analysis saw. It proves nothing. `line` is that of the first such place, or 0."""

    code: FindingCode
    detail: str
    line: int


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """The source of the program, measured. `language` is that of the analysis, empty if it knows none for it.

    `parsed` says that all of it was understood. `lines` and `entropy` (bits per byte) are -1 where it was not read.
    """

    language: str
    bytes: int
    lines: int
    entropy: float
    parsed: bool
