"""The environment of a program, built from nothing: what the profile fixes, then what it lets a request set.

Never inherits a variable. Names that make a loader or an interpreter run other code are refused even where a pattern
of the profile matches them. Called by `plan`.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from sandboxd.errors import InvalidRequest
from sandboxd.profile.resolve import ResolvedProfile

MAX_VARIABLES = 256
MAX_VALUE_BYTES = 64 * 1024
MAX_TOTAL_BYTES = 256 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")

_REFUSED_PREFIXES = ("LD_", "GIT_", "BASH_FUNC_", "DYLD_", "NPM_CONFIG_", "PIP_", "COREPACK_", "SANDBOXD_", "RES_")
_REFUSED_WORDS = (
    "GLIBC_TUNABLES GCONV_PATH LOCPATH NLSPATH HOSTALIASES RESOLV_HOST_CONF LOCALDOMAIN GETCONF_DIR TZDIR",
    "MALLOC_TRACE PYTHONSTARTUP PYTHONPATH PYTHONHOME PYTHONINSPECT PYTHONBREAKPOINT PYTHONEXECUTABLE",
    "PYTHONUSERBASE PYTHONPLATLIBDIR PYTHONPYCACHEPREFIX PYTHONWARNINGS PYTHON_JIT PYTHONCASEOK",
    "NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_REPL_EXTERNAL_MODULE NODE_CHANNEL_FD",
    "BASH_ENV ENV SHELLOPTS BASHOPTS PS4 PROMPT_COMMAND IFS CDPATH FPATH ZDOTDIR",
    "PERL5OPT PERL5LIB PERLLIB PERL5DB RUBYOPT RUBYLIB",
    "JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS CLASSPATH",
    "OPENSSL_CONF OPENSSL_MODULES OPENSSL_ENGINES SSLKEYLOGFILE",
    "PAGER MANPAGER EDITOR VISUAL BROWSER LESSOPEN LESSCLOSE",
    "GCC_EXEC_PREFIX COMPILER_PATH LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH MAKEFLAGS MAKEFILES",
)
_REFUSED = frozenset(word for words in _REFUSED_WORDS for word in words.split())


def compose(
    profile: ResolvedProfile, wanted: Iterable[tuple[str, str]], offered: Iterable[tuple[str, str]] = ()
) -> tuple[tuple[str, str], ...]:
    """All variables, sorted by name; `InvalidRequest` (env_not_allowed) for one that the profile does not grant.

    What is `offered` and not granted is left out; what is fixed or wanted goes before it.
    """
    fixed = dict(profile.env)
    own: dict[str, str] = {}
    for name, value in wanted:
        if not _NAME.match(name):
            raise InvalidRequest(f"environment variable {name[:128]!r} has no usable name; use letters, digits and _")
        if name in own:
            raise InvalidRequest(f"environment variable {name!r} is set twice; keep one")
        _check_granted(profile, fixed, name)
        own[name] = _checked_value(name, value)
    if len(own) > MAX_VARIABLES:
        raise InvalidRequest(f"{len(own)} environment variables are more than {MAX_VARIABLES}; put them in a file")
    total = sum(len(name) + len(value.encode()) for name, value in own.items())
    if total > MAX_TOTAL_BYTES:
        raise InvalidRequest(f"the environment of {total} bytes is over {MAX_TOTAL_BYTES}; put the data in a file")
    ours = {name: value for name, value in offered if _matches(profile, name)}
    return tuple(sorted({**ours, **fixed, **own}.items()))


def _check_granted(profile: ResolvedProfile, fixed: dict[str, str], name: str) -> None:
    if name in profile.env_allowed:
        return
    if name in fixed:
        raise _not_allowed(profile, name, "the profile fixes it")
    if name.upper() in _REFUSED or name.upper().startswith(_REFUSED_PREFIXES):
        raise _not_allowed(profile, name, "it can make a program run other code")
    if not _matches(profile, name):
        granted = ", ".join(profile.env_allowed) or "none"
        raise _not_allowed(profile, name, f"allowed are: {granted}")


def _matches(profile: ResolvedProfile, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in profile.env_allowed)


def _not_allowed(profile: ResolvedProfile, name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"environment variable {name!r} may not be set under profile {profile.name!r}: {why}",
        reason="env_not_allowed",
        message_for_agent=f"do not set the environment variable {name}",
    )


def _checked_value(name: str, value: str) -> str:
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"environment variable {name!r} is not UTF-8; encode the value") from error
    if "\0" in value:
        raise InvalidRequest(f"environment variable {name!r} has a NUL byte; remove it")
    if size > MAX_VALUE_BYTES:
        raise InvalidRequest(f"environment variable {name!r} has {size} bytes, over {MAX_VALUE_BYTES}; use a file")
    return value
