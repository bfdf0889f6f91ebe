"""What `mediate` and `report` of a profile come to: calls that the filter hands to init, and what init is told of them.

Pure, but for the filter that it has compiled. Called by `load` (to refuse a profile early) and `compile`.
"""

import errno
from dataclasses import dataclass

from sandboxd.errors import ProfileInvalid
from sandboxd.profile import seccomp
from sandboxd.profile.arming import refused_steps
from sandboxd.profile.schema import Spec
from sandboxd.profile.seccomp import NOTHING_NOTIFIED, Memfd, Notified

_EXECS = frozenset({"execve", "execveat"})


def mediates_exec(spec: Spec) -> bool:
    return "process.exec" in (spec.mediate or ())


def notified(spec: Spec) -> Notified:
    """An exec that the profile does not allow is refused by the filter, as ever."""
    allowed = {name for group in spec.seccomp.allow for name in group.names}
    return Notified(_EXECS & allowed if mediates_exec(spec) else frozenset(), frozenset(spec.report or ()))


@dataclass(frozen=True, slots=True)
class Filtered:
    """`first`: the filter may be there before the program is known. `reported` are calls with what each fails with."""

    program: bytes
    first: bool
    reported: tuple[tuple[int, int], ...]


def filtered(spec: Spec, memfd: Memfd = Memfd.SYSCTL) -> Filtered:
    calls = notified(spec)
    meaning = seccomp.meaning(spec.seccomp, memfd, calls)
    refused = refused_steps(meaning)
    if calls != NOTHING_NOTIFIED and refused:
        raise ProfileInvalid(
            f"'mediate' and 'report' need a filter that lets a program be started; allow {', '.join(refused)}"
        )
    numbers = {name: number for number, name in seccomp.known_numbers().items()}
    reported = tuple(
        (numbers[name], meaning.errnos.get(name, errno.EPERM)) for name in sorted(spec.report or ()) if name in numbers
    )
    return Filtered(seccomp.compiled(spec.seccomp, memfd, notified=calls), not refused, reported)
