"""The schema of a profile file; read it as the manual. Unknown keys are refused.

A profile `extends` at most one other. What it says replaces what the parent says: scalars by themselves, entries of
lists by their key (a syscall's name, a bind's target, a link's or file's path, a package's path, an interpreter's
language); entries with new keys are added, and `without` takes the parent's away. `description` and `labels` are not
inherited. Sizes are bytes, or text such as `512MiB`; durations are seconds. Used by `load`, `inherit` and `resolve`.
"""

import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
)

from sandboxd.model import Guarantee, Isolation

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_SIZE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,3}))?\s?(|B|KiB|MiB|GiB|KB|MB|GB)\Z")
_LARGEST = 1 << 50


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = _SIZE.match(value)
    if found is None:
        raise ValueError(f"{value!r} is no size; write bytes, or a number with KiB, MiB or GiB")
    whole, part, unit = found.groups()
    return int(whole) * _UNITS[unit] + int(int((part or "0").ljust(3, "0")) * _UNITS[unit] / 1000)


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _guarantee(value: object) -> object:
    return Guarantee(value) if isinstance(value, str) and value in set(Guarantee) else value


Name = Annotated[StrictStr, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Why = Annotated[StrictStr, StringConstraints(min_length=8, max_length=400)]
AbsolutePath = Annotated[StrictStr, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f]*$", max_length=1024)]
EnvName = Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
EnvPattern = Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9_*?]+$", max_length=128)]
Text = Annotated[StrictStr, StringConstraints(pattern=r"^[^\x00]*$", max_length=16384)]
Size = Annotated[StrictInt, BeforeValidator(_size), Field(ge=0, le=_LARGEST)]
Count = Annotated[StrictInt, Field(ge=0, le=1 << 31)]
Seconds = Annotated[float, BeforeValidator(_number), Field(ge=0, le=7 * 86400, allow_inf_nan=False)]
Cpus = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1024, allow_inf_nan=False)]
Level = Literal["require", "best_effort"]
GuaranteeId = Annotated[Guarantee, BeforeValidator(_guarantee)]
SyscallName = Annotated[StrictStr, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$", max_length=64)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bind(_Model):
    """A host path shown read-only in the sandbox, at `target` (default: the same path)."""

    source: AbsolutePath
    target: AbsolutePath | None = None
    executable: StrictBool = False
    optional: StrictBool = False  # left out where the host lacks it; else a launch fails
    why: Why

    def where(self) -> str:
        return self.target or self.source


class Symlink(_Model):
    """A link of the root; skipped where the host has a directory there, which is then bound instead."""

    path: AbsolutePath
    to: Annotated[StrictStr, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=1024)]
    why: Why


class GeneratedFile(_Model):
    """A small file of the root whose content stands here, mode 0444."""

    path: AbsolutePath
    content: Text
    why: Why


class Image(_Model):
    """A directory that is the whole root, read-only, in place of the host view."""

    path: AbsolutePath
    why: Why


class Root(_Model):
    """What the sandbox sees: an `image`, or a fresh root; then links, generated files and binds."""

    image: Image | None = None
    binds: tuple[Bind, ...] = ()
    symlinks: tuple[Symlink, ...] = ()
    files: tuple[GeneratedFile, ...] = ()


class Package(_Model):
    """A host directory shown read-only and executable at its own path: a virtual environment, a toolchain."""

    path: AbsolutePath
    optional: StrictBool = False
    why: Why


class Workspace(_Model):
    """/workspace. `executable` lets programs written there run, and the report then says so."""

    executable: StrictBool


class Env(_Model):
    """`fixed` is set always; `allow` are patterns (* and ?) of names that a request may set besides.

    Names that make a loader or an interpreter run other code (LD_*, PYTHONPATH, NODE_OPTIONS, BASH_ENV, GIT_*, …) are
    refused although a pattern matches them; only their exact name in `allow` lets them in. So with names in `fixed`.
    """

    fixed: dict[EnvName, Text] = {}
    allow: tuple[EnvPattern, ...] = ()


class Interpreter(_Model):
    """How `code` of that language runs: the source becomes `file_name` in the workspace, `{file}` its absolute path."""

    language: Name
    argv: Annotated[tuple[Text, ...], Field(min_length=1, max_length=32)]
    file_name: Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]


class Argument(_Model):
    """`args[index] & mask` is one of these values. Comparisons other than this one are not to be had."""

    index: Annotated[StrictInt, Field(ge=0, le=5)]
    mask: Annotated[StrictInt, Field(gt=0, le=0xFFFFFFFF)] = 0xFFFFFFFF
    one_of: Annotated[tuple[Annotated[StrictInt, Field(ge=0, le=0xFFFFFFFF)], ...], Field(min_length=1, max_length=64)]


class Allow(_Model):
    """System calls that may be made, with all of `args` holding. The floor's own argument rules always hold as well."""

    names: Annotated[tuple[SyscallName, ...], Field(min_length=1)]
    why: Why
    args: tuple[Argument, ...] = ()


class Deny(_Model):
    """Calls that answer this errno. What is named nowhere answers EPERM, what no kernel knew ENOSYS."""

    names: Annotated[tuple[SyscallName, ...], Field(min_length=1)]
    why: Why
    errno: Literal["EPERM", "EACCES", "ENOSYS"]


class Seccomp(_Model):
    allow: tuple[Allow, ...] = ()
    deny: tuple[Deny, ...] = ()


class LandlockPath(_Model):
    """A right beyond those that follow from `root`, `packages` and `workspace`. Nothing writable beyond these."""

    path: AbsolutePath
    access: Literal["read", "exec"]
    why: Why


class Landlock(_Model):
    """`scopes` keeps signals and abstract unix sockets inside, where the kernel can."""

    scopes: StrictBool | None = None
    paths: tuple[LandlockPath, ...] = ()


class LimitSpec(_Model):
    """See `model.Limits`. 0 turns off `idle_seconds` and `io_*`; a request can only go lower."""

    wall_seconds: Seconds | None = None
    idle_seconds: Seconds | None = None
    cpu_seconds: Seconds | None = None
    cpus: Cpus | None = None
    memory_bytes: Size | None = None
    pids: Count | None = None
    open_files: Count | None = None
    file_size_bytes: Size | None = None
    workspace_bytes: Size | None = None
    workspace_inodes: Count | None = None
    tmp_bytes: Size | None = None
    tmp_inodes: Count | None = None
    stdout_bytes: Size | None = None
    stderr_bytes: Size | None = None
    output_bytes: Size | None = None
    output_files_bytes: Size | None = None
    output_files: Count | None = None
    io_read_bytes_per_second: Size | None = None
    io_write_bytes_per_second: Size | None = None


class Enforcement(_Model):
    """`require` refuses to run where this node cannot enforce it; `best_effort` runs and reports.

    A child that sets `default` speaks for every guarantee that it does not name itself.
    """

    default: Level | None = None
    guarantees: dict[GuaranteeId, Level] = {}


class Without(_Model):
    """Keys of the parent's entries to leave out; one that the parent does not have is an error."""

    syscalls: tuple[SyscallName, ...] = ()
    binds: tuple[AbsolutePath, ...] = ()
    symlinks: tuple[AbsolutePath, ...] = ()
    files: tuple[AbsolutePath, ...] = ()
    packages: tuple[AbsolutePath, ...] = ()
    interpreters: tuple[Name, ...] = ()
    landlock: tuple[AbsolutePath, ...] = ()
    env: tuple[StrictStr, ...] = ()  # names of `fixed` and patterns of `allow`


class Spec(_Model):
    """A key left out is the parent's. Without a parent, all but lists and `env` must be there.

    `mediate`: actions inside the sandbox that policy decides, one by one. `report`: system calls whose refusal goes on
    record, be it for their arguments. Either list replaces the parent's, and an empty one turns it off.
    """

    description: Annotated[StrictStr, StringConstraints(min_length=1, max_length=2000)]
    extends: Name | None = None
    without: Without = Without()
    isolation: Isolation | None = None
    root: Root = Root()
    packages: tuple[Package, ...] = ()
    workspace: Workspace | None = None
    proc: Literal["full", "subset"] | None = None  # full: masked, /proc/sys read-only; subset: processes only
    network: Literal["none", "loopback"] | None = None  # none: not even lo is up
    env: Env = Env()
    cwd: AbsolutePath | None = None
    interpreters: tuple[Interpreter, ...] = ()
    seccomp: Seccomp = Seccomp()
    mediate: Annotated[tuple[Literal["process.exec"], ...], Field(max_length=1)] | None = None
    report: Annotated[tuple[SyscallName, ...], Field(max_length=512)] | None = None
    landlock: Landlock = Landlock()
    limits: LimitSpec = LimitSpec()
    enforcement: Enforcement = Enforcement()


class Metadata(_Model):
    name: Name
    labels: dict[
        Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")],
        Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,63}$")],
    ] = {}


class SandboxProfile(_Model):
    """A file, or a Kubernetes object of the same form."""

    apiVersion: Literal["sandboxd.io/v1"]
    kind: Literal["SandboxProfile"]
    metadata: Metadata
    spec: Spec
