"""The process in which source is parsed: parsers are attacked by their input, and some die of it.

Opens no file and no socket, starts nothing; the daemon kills it when it is late. Started by `analyser` as a script with
its end of a socket pair and its parent's pid. A question is a language, a NUL and the source; the answer is JSON.
"""

import codecs
import json
import sys

from sandboxd.analysis import javascript, python, shell
from sandboxd.analysis.commandline import JAVASCRIPT, PYTHON, SHELL, Code
from sandboxd.analysis.report import MAX_EMBEDDED_CHARS, Report, entropy
from sandboxd.finding import FindingCode
from sandboxd.host.confined import ANSWER, LOAD, give_up_system_calls, serve

MAX_DEPTH = 3
_LEAST_CHARS = 256  # that reading any source, however short, is taken to cost
# That Python source may say it is in; of others it is said that it could not be analysed.
_ENCODINGS = ("ascii", "latin-1", "iso8859-15", "cp1252", "utf-7", "utf-8-sig", "utf-16")
_READ = {PYTHON: python.read, SHELL: shell.read, JAVASCRIPT: javascript.read}


def main(descriptor: int, parent: int) -> None:
    serve(descriptor, parent, _answer)


def _answer(kind: int, body: bytes) -> tuple[int, str]:
    """LOAD comes first, to see that it works: what has to be imported for that is there from then on."""
    if kind == LOAD:
        for known in _READ:
            analyse(known, b"")
        for encoding in _ENCODINGS:
            codecs.lookup(encoding)
        give_up_system_calls()
        return ANSWER, ""
    language, _, source = body.partition(b"\0")
    return ANSWER, analyse(language.decode(), source)


def analyse(language: str, source: bytes) -> str:
    """The answer's JSON text. Source that stands as text in the source is read too, some levels deep."""
    report = Report()
    parsed = _READ[language](source, report)
    _read_embedded(report)
    return json.dumps(
        {
            "parsed": parsed,
            "lines": source.count(b"\n") + (not source.endswith(b"\n") and source != b""),
            "entropy": entropy(source),
            "findings": [(code, detail, line) for (code, detail), line in report.found.items()],
        }
    )


def _read_embedded(report: Report) -> None:
    """Each is read by itself, and what is found in it stands on the line of its place in the outer source."""
    waiting = [(code, line, 1) for code, line in report.embedded]
    room = MAX_EMBEDDED_CHARS
    while waiting:
        code, line, depth = waiting.pop()
        room -= len(code.text) + _LEAST_CHARS
        if room < 0:
            report.cut("embedded", line)
            return
        inner = _inside(code)
        for finding, detail in inner.found:
            if finding is not FindingCode.FAILED or not code.partial:
                report.add(finding, detail, line)
        if depth < MAX_DEPTH:
            waiting.extend((deeper, line, depth + 1) for deeper, _ in inner.embedded)
        elif inner.embedded:
            report.cut("embedded", line)


def _inside(code: Code) -> Report:
    report = Report()
    _READ[code.language](code.text.encode("utf-8", "replace"), report)
    return report


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
