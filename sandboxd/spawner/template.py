"""What the spawner knows of a profile: compiled by a short-lived child of its own, so a launch only names a digest.

Plain data, standard library only. Made by `profile.compile`, read by `spawner.mounts`, `landlock`, `seccomp`, `init`.
"""

import base64
import json
from dataclasses import asdict, dataclass

WORKSPACE = "/workspace"
TMP = "/tmp"
SHM = "/dev/shm"


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
    ceilings: Ceilings


def dump(templates: tuple[Template, ...]) -> str:
    """One JSON document for the pipe between compiler child and spawner."""
    rows = []
    for template in templates:
        row = asdict(template)
        row["seccomp"] = base64.b64encode(template.seccomp).decode()
        rows.append(row)
    return json.dumps({"templates": rows}, sort_keys=True)


def load(text: str) -> tuple[Template, ...]:
    """The inverse of `dump`; ValueError, KeyError or TypeError if the text is not its output."""
    return tuple(_template(row) for row in json.loads(text)["templates"])


def _template(row: dict[str, object]) -> Template:
    fields = dict(row)
    view = dict(_mapping(fields["view"]))
    fields["view"] = View(
        image=str(view["image"]),
        binds=tuple(
            Bind(**bind)  # type: ignore[arg-type]
            for bind in _rows(view["binds"])
        ),
        symlinks=_pairs(view["symlinks"]),
        files=_pairs(view["files"]),
    )
    fields["ceilings"] = Ceilings(**_mapping(fields["ceilings"]))  # type: ignore[arg-type]
    fields["landlock"] = _pairs(fields["landlock"])
    fields["seccomp"] = base64.b64decode(str(fields["seccomp"]), validate=True)
    return Template(**fields)  # type: ignore[arg-type]


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r}")
    return value


def _rows(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return [_mapping(row) for row in value]


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return tuple((str(first), str(second)) for first, second in value)
