"""The last steps before a tenant's program: from a fork of init to execve, each step with its reason.

Nothing after `execve` is ours. A step that fails ends the child: a program never runs with less than the template says.
Called by `init` in the forked child.
"""

import fcntl
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from sandboxd.spawner import sys
from sandboxd.spawner.seccomp import Filter
from sandboxd.spawner.wire import Execute

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_STATUS_FD = 3
_RULESET_FD = 4
_OUT_OF_THE_WAY = 64
_LAST_FD = 0x7FFFFFFF
_ALWAYS = (
    (resource.RLIMIT_CORE, 1),  # at 1 the kernel skips a core_pattern pipe handler, at 0 it does not
    (resource.RLIMIT_MEMLOCK, 65536),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_NICE, 0),
    (resource.RLIMIT_RTPRIO, 0),
)


@dataclass(frozen=True, slots=True)
class Cage:
    """What every execution of a sandbox is put into; made once per sandbox."""

    filter: Filter
    ruleset_fd: int | None  # None: this kernel has no Landlock, and the report says so
    payload_uid: int  # of slot 0
    single_id: bool


def run(plan: Execute, stdio: Sequence[int], cage: Cage, status_fd: int) -> NoReturn:
    """Become the program. On failure the step is written to `status_fd` as `step NUL errno NUL detail`."""
    step = "setsid"
    try:
        os.setsid()  # no controlling terminal to push input into (TIOCSTI), and a group of its own to signal
        step = "dup2"
        ruleset = _arrange(stdio, cage.ruleset_fd, status_fd)
        status_fd = _STATUS_FD
        step = "setrlimit"
        for kind, soft, hard in _rlimits(plan):
            _limit(kind, soft, hard)
        step = "setresuid"
        uid = cage.payload_uid + (0 if cage.single_id else plan.slot)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        step = "capset"  # with one id for all there was no change of uid that would have dropped them
        sys.drop_capabilities()
        step = "no_new_privs"
        sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
        step = "chdir"
        os.chdir(plan.cwd)
        step = "signals"
        _reset_signals()
        step = "landlock"
        if ruleset is not None:
            sys.landlock_restrict_self(ruleset)
            os.close(ruleset)
        step = "seccomp"  # last, so that the steps above need no place in the profile's list
        sys.seccomp_set_filter(cage.filter.program)
    except (OSError, ValueError) as error:
        _fail(status_fd, step, error)
    _exec(plan)


def _arrange(stdio: Sequence[int], ruleset_fd: int | None, status_fd: int) -> int | None:
    """0-2 are the program's, 3 tells init how it went and closes with execve, 4 is the ruleset; all else is closed."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in (*stdio, status_fd)]
    for target, fd in enumerate(moved[:3]):
        os.dup2(fd, target)
    if ruleset_fd is None:
        os.dup2(moved[3], _STATUS_FD, inheritable=False)
        sys.close_range(_STATUS_FD + 1, _LAST_FD)
        return None
    ruleset = fcntl.fcntl(ruleset_fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    os.dup2(moved[3], _STATUS_FD, inheritable=False)
    os.dup2(ruleset, _RULESET_FD, inheritable=False)
    sys.close_range(_RULESET_FD + 1, _LAST_FD)
    return _RULESET_FD


def _rlimits(plan: Execute) -> list[tuple[int, int, int]]:
    cpu = max(1, int(plan.cpu_seconds) + (plan.cpu_seconds % 1 > 0))
    limits = [
        (resource.RLIMIT_NOFILE, plan.open_files, plan.open_files),
        (resource.RLIMIT_FSIZE, plan.file_size_bytes, plan.file_size_bytes),
        (resource.RLIMIT_CPU, cpu, cpu + 1),
    ]
    if plan.memory_bytes:
        limits.append((resource.RLIMIT_AS, plan.memory_bytes, plan.memory_bytes))
    if plan.pids:
        limits.append((resource.RLIMIT_NPROC, plan.pids, plan.pids))
    return limits


def limit_for_good() -> None:
    """What is the same for every program of every profile; init takes it on itself once, at its birth."""
    os.umask(0o022)
    for kind, value in _ALWAYS:
        _limit(kind, value, value)


def _limit(kind: int, soft: int, hard: int) -> None:
    """A surrounding limit that is tighter already stays."""
    _, ceiling = resource.getrlimit(kind)
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def _reset_signals() -> None:
    """Python ignores SIGPIPE and SIGXFSZ, init wants to be woken by SIGCHLD; a program expects the defaults."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _exec(plan: Execute) -> NoReturn:
    name = plan.argv[0]
    environment = dict(plan.env)
    search = environment.get("PATH", "").split(":")
    candidates = [name] if "/" in name else [f"{directory}/{name}" for directory in search if directory]
    failure = OSError(2, os.strerror(2))
    for candidate in candidates:
        try:
            os.execve(candidate, plan.argv, environment)
        except OSError as error:
            # As execvp(3): a match that may not be executed is remembered, a missing one is passed over.
            if error.errno not in (2, 20):
                failure = error
        except ValueError as error:
            failure = OSError(22, str(error))
    text = f"sandboxd: cannot run {name!r}: {failure.strerror}\n"
    os.write(2, text.encode(errors="backslashreplace"))
    os._exit(NOT_FOUND if failure.errno == 2 else NOT_EXECUTABLE)


def _fail(status_fd: int, step: str, error: OSError | ValueError) -> NoReturn:
    number = error.errno if isinstance(error, OSError) and error.errno else 22
    message = f"{step}\0{number}\0{error}".encode()[:1024]
    os.write(status_fd, message)
    os._exit(NOT_FOUND)
