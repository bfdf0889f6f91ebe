"""What the spawner knows of a profile: compiled by a short-lived child of its own, so a launch only names a digest.

Plain data, standard library only. Made by `profile.compile`, read by `spawner.mounts`, `landlock`, `seccomp`, `init`.
"""

import base64
import json
import math
import os
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

WORKSPACE = "/workspace"
TMP = "/tmp"
SHM = "/dev/shm"


class TemplateInvalid(ValueError):
    """This text was not made by `dump`; the message names the field."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A read-only bind of a host path. `optional`: left out where the host lacks it, else the template fails."""

    source: str
    target: str
    executable: bool
    optional: bool


@dataclass(frozen=True, slots=True)
class View:
    """How the root is built: an `image` directory (empty: a fresh tmpfs), then links, files and binds."""

    image: str
    binds: tuple[Bind, ...]
    symlinks: tuple[tuple[str, str], ...]  # path, what it points to; skipped where the host has a directory there
    files: tuple[tuple[str, str], ...]  # path, content; 0444


@dataclass(frozen=True, slots=True)
class Ceilings:
    """A launch may be at or below these, never above. Units as in `model.Limits`."""

    memory_bytes: int
    pids: int
    cpus: float
    cpu_seconds: float
    open_files: int
    file_size_bytes: int
    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int


@dataclass(frozen=True, slots=True)
class Mediation:
    """Which calls the filter hands to init: every exec that is allowed, and refused ones with their errno."""

    exec: bool = False
    reported: tuple[tuple[int, int], ...] = ()

    @property
    def listens(self) -> bool:
        return self.exec or bool(self.reported)


NO_MEDIATION = Mediation()


@dataclass(frozen=True, slots=True)
class Template:
    """One compiled profile. `landlock` pairs a path with a name of `landlock._ACCESS`."""

    digest: str
    name: str
    hostname: str
    view: View
    proc: str  # "full" (masked) or "subset"
    network: str  # the widest mode a launch may ask for: "none" or "loopback"
    workspace_executable: bool
    landlock: tuple[tuple[str, str], ...]
    landlock_scopes: bool
    seccomp: bytes  # struct sock_filter[], native byte order
    seccomp_first: bool  # it lets through what `payload` does to start a program, so it can be there before the plan
    ceilings: Ceilings
    mediation: Mediation = NO_MEDIATION  # needs `seccomp_first`


def dump(templates: tuple[Template, ...]) -> str:
    """One JSON document for the pipe between compiler child and spawner."""
    rows = []
    for template in templates:
        row = asdict(template)
        row["seccomp"] = base64.b64encode(template.seccomp).decode()
        rows.append(row)
    return json.dumps({"templates": rows}, sort_keys=True)


def load(text: str) -> tuple[Template, ...]:
    """The inverse of `dump`; `TemplateInvalid` if the text is not its output."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TemplateInvalid(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.keys() != {"templates"}:
        raise TemplateInvalid("expected an object with 'templates'")
    templates: tuple[Template, ...] = _read("templates", tuple[Template, ...], document["templates"])
    return templates


def _read(where: str, hint: Any, value: object) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise TemplateInvalid(f"{where}: expected the fields {sorted(hints)}")
        return hint(**{name: _read(f"{where}.{name}", hints[name], value[name]) for name in hints})
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if not isinstance(value, list) or (items[-1] is not Ellipsis and len(value) != len(items)):
            raise TemplateInvalid(f"{where}: expected a list of {items}")
        repeated = (items[0],) * len(value) if items[-1] is Ellipsis else items
        return tuple(_read(where, item, element) for item, element in zip(repeated, value, strict=True))
    if hint is bytes and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise TemplateInvalid(f"{where}: {error}") from error
    if hint is float and type(value) in (int, float):
        try:
            number = float(value)  # type: ignore[arg-type]
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise TemplateInvalid(f"{where}: out of range")
        return number
    if type(value) is not hint:
        raise TemplateInvalid(f"{where}: expected {hint.__name__}, got {type(value).__name__}")
    if isinstance(value, str):
        try:
            os.fsencode(value)  # half of a character would join with what follows it when it is written again
        except UnicodeEncodeError as error:
            raise TemplateInvalid(f"{where}: not text: {error.reason}") from error
    return value
