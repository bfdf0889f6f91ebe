"""Finds source that stands in an argument: `python3 -c CODE`, `bash -c CODE`, `env node -e CODE`.

Follows how each interpreter reads its own options, for the usual ones; code in a file or on standard input is not seen.
Called by `analyser`, and by the languages for the commands that they find in source.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandboxd.analysis import known

PYTHON, SHELL, JAVASCRIPT = "python", "shell", "javascript"
# What a profile may call an interpreter, and the name of its program.
LANGUAGES = {
    **dict.fromkeys(("python", "python3", "pypy", "pypy3"), PYTHON),
    **dict.fromkeys(("sh", "bash", "dash", "ash", "ksh", "zsh", "shell"), SHELL),
    **dict.fromkeys(("node", "nodejs", "javascript", "js"), JAVASCRIPT),
}
_SHELL_TAKES_A_WORD = frozenset({"--rcfile", "--init-file"})
_NODE_TAKES_A_WORD = frozenset({"-r", "--require", "--import", "--loader", "-C", "--conditions", "--input-type"})
_TAKES_A_WORD = _SHELL_TAKES_A_WORD | _NODE_TAKES_A_WORD | {"-o", "-O", "+o", "+O", "-W", "-X"}
_NODE_CODE = frozenset({"-e", "--eval", "-p", "--print", "-pe"})


@dataclass(frozen=True, slots=True)
class Code:
    """Source, and the language of the analysis for it: empty if it has none. `partial`: some of it is not known."""

    language: str
    text: str
    partial: bool = False


def interpreter_of(program: str) -> str:
    """The language that a program of that name or path interprets, versions aside; empty if none is known."""
    name = short(program)
    return LANGUAGES.get(name) or LANGUAGES.get(name.rstrip("0123456789."), "")


def short(name: str) -> str:
    return name.rpartition("/")[2]


def code_in(argv: Sequence[str]) -> Code | None:
    """The source that this command line hands to an interpreter, also through `env` and its like."""
    for start, end in commands(argv):
        if language := interpreter_of(argv[start]):
            text = _READ[language](argv[start + 1 : end])
            return None if text is None else Code(language, text)
    return None


def reads_its_program(argv: Sequence[str]) -> bool:
    """Whether an interpreter with this command line takes its program from standard input."""
    options = argv[1:]
    for index, word in enumerate(options):
        if word in ("-", "-s", "/dev/stdin"):
            return True
        if not word.startswith(("-", "+")):
            return options[index - 1] in _TAKES_A_WORD if index else False
        if interpreter_of(argv[0]) == PYTHON and word.startswith("-m"):
            return False
    return code_in(argv) is None and known.OTHER_INTERPRETERS.get(short(argv[0]), frozenset()).isdisjoint(options)


def commands(words: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Where the command begins and ends, and those that it runs in turn (`sudo -u x env A=b sh`, `find -exec sh`)."""
    waiting = [(0, len(words))]
    while waiting:
        start, end = waiting.pop()
        if start >= end:
            continue
        yield start, end
        name = short(words[start] or "")
        if name == "find":
            waiting.extend(_executed(words, start, end))
        elif name in known.WRAPPERS:
            waiting.append((_after_options(name, words, start, end), end))


def _executed(words: Sequence[str | None], start: int, end: int) -> list[tuple[int, int]]:
    """Last first."""
    found = []
    for place in range(end - 1, start, -1):
        if words[place] in known.EXECUTING_OPTIONS:
            found.append((place + 1, end))
            end = place
    return found


def _after_options(name: str, words: Sequence[str | None], start: int, end: int) -> int:
    """Past its own words: also those of `env A=b`, `timeout 5s`, `flock FILE`."""
    taking = {f"-{letter}" for letter in known.WRAPPERS[name]} | known.LONG_OPTIONS_OF_A_WORD
    files = name in known.WRAPPERS_OF_A_FILE
    place = start + 1
    while place < end:
        word = words[place] or ""
        if not word.startswith("-") and "=" not in word and not word[:1].isdigit():
            if not files:
                break
            files = False
        place += 2 if word in taking else 1
    return place


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
