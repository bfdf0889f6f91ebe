"""What is to run and which files come along: a request's program, working directory, file names and globs, validated.

Never touches a file system: init opens every path inside the sandbox, with its own checks. Called by `plan`.
"""

import unicodedata
from collections.abc import Iterable

from sandboxd.errors import InvalidRequest
from sandboxd.model import ArgvProgram, CodeProgram, ExecuteRequest, InputFile
from sandboxd.profile.resolve import Interpreter, ResolvedProfile

WORKSPACE = "/workspace"
MAX_ARGUMENTS = 4096
MAX_ARGUMENT_BYTES = 128 * 1024 - 1  # MAX_ARG_STRLEN of the kernel, with its NUL
MAX_ARGV_BYTES = 1024 * 1024
MAX_PATH_BYTES = 4095
MAX_COMPONENT_BYTES = 255
MAX_PATH_DEPTH = 64
MAX_INPUT_FILES = 4096
MAX_PATTERNS = 256
_CODE_MODE = 0o644


def argv_and_files(profile: ResolvedProfile, request: ExecuteRequest) -> tuple[tuple[str, ...], tuple[InputFile, ...]]:
    """The command line, and all files for the workspace with the source of a `CodeProgram` among them."""
    files = _checked_files(request.files)
    match request.program:
        case ArgvProgram(argv=argv):
            words = argv
        case CodeProgram(language=language, source=source):
            interpreter = _interpreter(profile, language)
            if any(file.path == interpreter.file_name for file in files):
                raise InvalidRequest(
                    f"input file {interpreter.file_name!r} would be overwritten by the code; name it otherwise"
                )
            files = (*files, InputFile(interpreter.file_name, _encoded("the code", source), _CODE_MODE))
            path = f"{WORKSPACE}/{interpreter.file_name}"
            words = tuple(word.replace("{file}", path) for word in interpreter.argv)
    total = sum(len(file.content) for file in files)
    if total > profile.limits.workspace_bytes:
        raise InvalidRequest(
            f"the input files have {total} bytes, the workspace holds {profile.limits.workspace_bytes}; send less"
        )
    return _checked_argv(words), files


def working_directory(profile: ResolvedProfile, cwd: str) -> str:
    """Absolute inside the sandbox; relative ones start at the workspace."""
    if not cwd:
        return profile.cwd
    if not cwd.startswith("/"):
        return f"{WORKSPACE}/{relative_path('working directory', cwd)}"
    parts = [part for part in cwd.split("/") if part]
    if parts:
        relative_path("working directory", "/".join(parts))
    return "/" + "/".join(parts)


def patterns(wanted: Iterable[str]) -> tuple[str, ...]:
    """Globs of files to collect."""
    checked = tuple(dict.fromkeys(relative_path("output pattern", pattern) for pattern in wanted))
    if len(checked) > MAX_PATTERNS:
        raise InvalidRequest(f"{len(checked)} output patterns are more than {MAX_PATTERNS}; use wildcards")
    return checked


def relative_path(what: str, path: str) -> str:
    """The path itself if it can only name something below the workspace, else `InvalidRequest` (bad_path)."""
    encoded = _encoded(what, path)
    problem = ""
    components = path.split("/")
    if not path:
        problem = "is empty"
    elif path.startswith("/"):
        problem = "is absolute; make it relative to the workspace"
    elif any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in path):
        problem = "has control characters; remove them"
    elif any(component in ("", ".", "..") for component in components):
        problem = "has an empty, '.' or '..' component; write it plainly"
    elif len(encoded) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_COMPONENT_BYTES for part in components):
        problem = f"is longer than {MAX_COMPONENT_BYTES} bytes in a component or {MAX_PATH_BYTES} in all"
    elif len(components) > MAX_PATH_DEPTH:
        problem = f"is deeper than {MAX_PATH_DEPTH} directories"
    if problem:
        raise InvalidRequest(f"{what} {path[:80]!r} {problem}", reason="bad_path")
    return path


def _checked_files(files: tuple[InputFile, ...]) -> tuple[InputFile, ...]:
    if len(files) > MAX_INPUT_FILES:
        raise InvalidRequest(f"{len(files)} input files are more than {MAX_INPUT_FILES}; send an archive")
    names: set[str] = set()
    for file in files:
        relative_path("input file", file.path)
        if file.path in names:
            raise InvalidRequest(f"input file {file.path!r} is there twice; keep one", reason="bad_path")
        if file.mode & ~0o777:
            raise InvalidRequest(f"input file {file.path!r} has mode {file.mode:#o}; only permission bits are taken")
        names.add(file.path)
    for name in names:
        parent = name.rpartition("/")[0]
        while parent:
            if parent in names:
                raise InvalidRequest(f"input file {parent!r} is also a directory of {name!r}", reason="bad_path")
            parent = parent.rpartition("/")[0]
    return files


def _checked_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or not argv[0]:
        raise InvalidRequest("no program is named; give argv a first word", reason="bad_argv")
    if len(argv) > MAX_ARGUMENTS:
        raise InvalidRequest(f"{len(argv)} arguments are more than {MAX_ARGUMENTS}; use a file", reason="bad_argv")
    total = 0
    for index, word in enumerate(argv):
        size = len(_encoded(f"argument {index}", word))
        if "\0" in word:
            raise InvalidRequest(f"argument {index} has a NUL byte; remove it", reason="bad_argv")
        if size > MAX_ARGUMENT_BYTES:
            raise InvalidRequest(f"argument {index} has {size} bytes; send it as stdin or a file", reason="bad_argv")
        total += size + 1
    if total > MAX_ARGV_BYTES:
        raise InvalidRequest(f"arguments of {total} bytes are over {MAX_ARGV_BYTES}; use a file", reason="bad_argv")
    return argv


def _encoded(what: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{what} is not UTF-8; re-encode it") from error


def _interpreter(profile: ResolvedProfile, language: str) -> Interpreter:
    for interpreter in profile.interpreters:
        if interpreter.language == language:
            return interpreter
    known = ", ".join(interpreter.language for interpreter in profile.interpreters) or "none"
    raise InvalidRequest(
        f"language {language[:64]!r} is unknown to profile {profile.name!r}; known are {known}",
        reason="language_unknown",
        message_for_agent=f"this sandbox runs: {known}",
    )
