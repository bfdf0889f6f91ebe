"""The profile templates as the spawner holds them, ready to be used, and the checks that nobody goes beyond them.

Made once per (re)load; every init inherits them by fork. Called by the main process and by `blank` and `init`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sandboxd.spawner.cgroup_base import CgroupLimits
from sandboxd.spawner.ids import PER_SANDBOX
from sandboxd.spawner.mounts import Room, Stage
from sandboxd.spawner.seccomp import Filter
from sandboxd.spawner.template import NO_MEDIATION, Mediation, Template
from sandboxd.spawner.wire import Assign, Execute, Launch


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a template is already built into a blank. Most profiles share one, so a blank serves any of them."""

    view: str  # its path on the stage
    hostname: str
    proc: str
    workspace_executable: bool
    landlock: tuple[tuple[str, str], ...]
    landlock_scopes: bool
    seccomp: bytes
    seccomp_first: bool
    mediation: Mediation = NO_MEDIATION


@dataclass(frozen=True, slots=True)
class Prepared:
    """A template with its filter laid out and its view built."""

    template: Template
    filter: Filter
    shape: Shape

    @property
    def room(self) -> Room:
        """What a launch gets that asks for no less than the profile gives."""
        ceilings = self.template.ceilings
        return Room(ceilings.workspace_bytes, ceilings.workspace_inodes, ceilings.tmp_bytes, ceilings.tmp_inodes)

    @property
    def limits(self) -> CgroupLimits:
        """Likewise."""
        ceilings = self.template.ceilings
        return CgroupLimits(ceilings.memory_bytes, ceilings.pids, ceilings.cpus)


class LaunchRefused(Exception):
    """The daemon asked for what no template allows. `reason` is one of `wire.Refused`'s."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def prepare(templates: tuple[Template, ...], stage: Stage, former: Mapping[str, Prepared]) -> dict[str, Prepared]:
    """By digest. `mounts.ViewInvalid` or `seccomp.FilterInvalid` if one cannot be had: then none is.

    The views of `former` stay on the stage, those of earlier generations go.
    """
    prepared = {t.digest: Prepared(t, Filter(t.seccomp), _shape(t, stage)) for t in templates}
    stage.retain_views(frozenset(p.shape.view for p in (*prepared.values(), *former.values())))
    return prepared


def _shape(template: Template, stage: Stage) -> Shape:
    return Shape(
        stage.add_view(template.view),
        template.hostname,
        template.proc,
        template.workspace_executable,
        template.landlock,
        template.landlock_scopes,
        template.seccomp,
        template.seccomp_first,
        template.mediation,
    )


def check(launch: Launch, prepared: Mapping[str, Prepared]) -> Prepared:
    """The template that the launch names, if it stays at or below its ceilings; `LaunchRefused` otherwise."""
    found = prepared.get(launch.template)
    if found is None:
        raise LaunchRefused("template_unknown", f"no template {launch.template!r}; profiles were changed: reload")
    ceilings = found.template.ceilings
    for name, asked, ceiling in (
        ("memory_bytes", launch.memory_bytes, ceilings.memory_bytes),
        ("pids", launch.pids, ceilings.pids),
        ("cpus", launch.cpus, ceilings.cpus),
        ("workspace_bytes", launch.workspace_bytes, ceilings.workspace_bytes),
        ("workspace_inodes", launch.workspace_inodes, ceilings.workspace_inodes),
        ("tmp_bytes", launch.tmp_bytes, ceilings.tmp_bytes),
        ("tmp_inodes", launch.tmp_inodes, ceilings.tmp_inodes),
    ):
        if not 0 < asked <= ceiling:
            raise LaunchRefused("above_ceiling", f"{name} {asked!r} is not above 0 and at most {ceiling!r}")
    for name, rate in (("read", launch.io_read_bytes_per_second), ("write", launch.io_write_bytes_per_second)):
        if rate < 0:
            raise LaunchRefused("above_ceiling", f"io_{name}_bytes_per_second {rate!r} is negative")
    if launch.network not in ("none", found.template.network):
        raise LaunchRefused("above_ceiling", f"network {launch.network!r} is wider than {found.template.network!r}")
    return found


def objection(plan: Execute, template: Template, assigned: Assign) -> str:
    """Why init must not start this, or "".

    The limits that it sets itself are held to the template's ceilings too, and where no cgroup holds what the launch
    said, an rlimit that does must be among them: a daemon that was taken over could leave it out.
    """
    ceilings = template.ceilings
    uncontrolled = (("memory_bytes", plan.memory_bytes, assigned.memory_bytes), ("pids", plan.pids, assigned.pids))
    for name, asked, ceiling in (
        ("open_files", plan.open_files, ceilings.open_files),
        ("file_size_bytes", plan.file_size_bytes, ceilings.file_size_bytes),
        ("cpu_seconds", plan.cpu_seconds, ceilings.cpu_seconds),
        *(limit for limit in uncontrolled if limit[2]),
    ):
        if not 0 < asked <= ceiling:
            return f"{name} {asked!r} is not above 0 and at most {ceiling!r}"
    for name, asked, _ in uncontrolled:
        if asked < 0:
            return f"{name} {asked!r} is negative"
    if not is_slot(plan.slot):
        return f"slot {plan.slot!r} has no uid in this sandbox"
    return "" if plan.argv else "argv is empty"


def is_slot(slot: int) -> bool:
    """Whether a uid of the sandbox's range belongs to it; beyond them lies init's own."""
    return 0 <= slot < PER_SANDBOX - 1
