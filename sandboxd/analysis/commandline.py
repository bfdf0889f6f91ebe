"""Finds source that stands in an argument: `python3 -c CODE`, `bash -c CODE`, `node -e CODE`.

Follows how each interpreter reads its own options, for the usual ones; code in a file or on standard input is not seen.
Called by `analyser`, and by the languages for the commands that they find in source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

PYTHON, SHELL, JAVASCRIPT = "python", "shell", "javascript"
# What a profile may call an interpreter, and the name of its program.
LANGUAGES = {
    **dict.fromkeys(("python", "python3", "pypy", "pypy3"), PYTHON),
    **dict.fromkeys(("sh", "bash", "dash", "ash", "ksh", "zsh", "shell"), SHELL),
    **dict.fromkeys(("node", "nodejs", "javascript", "js"), JAVASCRIPT),
}
_SHELL_TAKES_A_WORD = frozenset({"--rcfile", "--init-file"})
_NODE_TAKES_A_WORD = frozenset({"-r", "--require", "--import", "--loader", "-C", "--conditions", "--input-type"})
_NODE_CODE = frozenset({"-e", "--eval", "-p", "--print", "-pe"})


@dataclass(frozen=True, slots=True)
class Code:
    """Source, and the language of the analysis for it: empty if it has none. `partial`: some of it is not known."""

    language: str
    text: str
    partial: bool = False


def interpreter_of(program: str) -> str:
    """The language that a program of that name or path interprets, versions aside; empty if none is known."""
    name = program.rpartition("/")[2]
    return LANGUAGES.get(name) or LANGUAGES.get(name.rstrip("0123456789."), "")


def code_in(argv: Sequence[str]) -> Code | None:
    """The source that this command line hands to an interpreter."""
    language = interpreter_of(argv[0]) if len(argv) > 1 else ""
    if not language:
        return None
    text = _READ[language](argv[1:])
    return None if text is None else Code(language, text)


def _python(words: Sequence[str]) -> str | None:
    """Short options may be joined (`-Ic`), and what follows `c` in the same word is code already (`-cpass`)."""
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] != "-":
        word = words[index]
        index += 1
        if word.startswith("--"):
            index += word == "--check-hash-based-pycs"
            continue
        for place, letter in enumerate(word[1:], 2):
            if letter == "c":
                return word[place:] or _at(words, index)
            if letter == "m":
                return None
            if letter in "WX":
                index += not word[place:]
                break
    return None


def _shell(words: Sequence[str]) -> str | None:
    """`-c` is a flag: the code is the first word that is no option."""
    index, commanded = 0, False
    while index < len(words) and words[index][:1] in ("-", "+") and words[index] not in ("-", "--"):
        word = words[index]
        index += 1
        if word.startswith("--"):
            index += word in _SHELL_TAKES_A_WORD
            continue
        commanded |= word.startswith("-") and "c" in word
        index += word[-1] in "oO"
    index += _at(words, index) in ("-", "--")
    return _at(words, index) if commanded else None


def _javascript(words: Sequence[str]) -> str | None:
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] not in ("-", "--"):
        word = words[index]
        index += 1
        if word in _NODE_CODE:
            return _at(words, index)
        name, assigned, value = word.partition("=")
        if assigned and name in ("--eval", "--print"):
            return value
        index += word in _NODE_TAKES_A_WORD
    return None


def _at(words: Sequence[str], index: int) -> str | None:
    return words[index] if index < len(words) else None


_READ = {PYTHON: _python, SHELL: _shell, JAVASCRIPT: _javascript}
