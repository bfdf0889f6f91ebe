"""Compiles profiles into the spawner's templates: `python -m sandboxd.profile.compile [--memfd HOW] PATH…`.

A short-lived child of the spawner, with its rights, so it must only read; stdout is `template.dump`, complaints go to
stderr with exit code 1. The digest of a template is the profile's own and does not depend on `--memfd`.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from sandboxd.errors import ProfileInvalid
from sandboxd.profile import checks
from sandboxd.profile.load import load_profiles
from sandboxd.profile.mediation import filtered, mediates_exec
from sandboxd.profile.resolve import ResolvedProfile
from sandboxd.profile.schema import Spec
from sandboxd.profile.seccomp import Memfd
from sandboxd.spawner import template
from sandboxd.spawner.template import Bind, Ceilings, Mediation, Template, View

_HOSTNAME = "sandbox"


def compiled(profile: ResolvedProfile, memfd: Memfd) -> Template:
    spec = profile.spec
    limits = profile.limits
    filter_ = filtered(spec, memfd)
    return Template(
        digest=profile.digest,
        name=profile.name,
        hostname=_HOSTNAME,
        view=_view(spec),
        proc=spec.proc or "subset",
        network=profile.network,
        workspace_executable=_workspace_executable(spec),
        landlock=tuple(landlock_rules(spec)),
        landlock_scopes=spec.landlock.scopes is not False,
        seccomp=filter_.program,
        seccomp_first=filter_.first,
        mediation=Mediation(mediates_exec(spec), filter_.reported),
        ceilings=Ceilings(
            memory_bytes=limits.memory_bytes,
            pids=limits.pids,
            cpus=limits.cpus,
            cpu_seconds=limits.cpu_seconds,
            open_files=limits.open_files,
            file_size_bytes=limits.file_size_bytes,
            workspace_bytes=limits.workspace_bytes,
            workspace_inodes=limits.workspace_inodes,
            tmp_bytes=limits.tmp_bytes,
            tmp_inodes=limits.tmp_inodes,
        ),
    )


def landlock_rules(spec: Spec) -> Iterable[tuple[str, str]]:
    """(path, access) pairs for everything in the view; a path that the view lacks grants nothing."""
    # `ls /` may list, and all of /etc is either bound or generated, so one rule stands for the many
    rules: dict[str, str] = {"/": "list", "/etc": "read"}
    links = {link.path for link in spec.root.symlinks if Path(link.path).is_symlink()}
    for bind in spec.root.binds:
        if bind.executable and bind.where() not in links:
            rules[bind.where()] = "exec"
        elif not bind.executable and not bind.where().startswith("/etc/"):
            rules[bind.where()] = "read"
    for package in spec.packages:
        rules[package.path] = "exec"
    for file in spec.root.files:
        if not file.path.startswith("/etc/"):
            rules[file.path] = "read"
    if spec.root.image is not None:
        rules.update(dict.fromkeys(("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt"), "exec"))
        rules.update(dict.fromkeys(("/var", "/srv"), "read"))
    for path in spec.landlock.paths:
        rules[path.path] = path.access
    rules["/proc"] = "read"
    rules["/dev"] = "devices"
    rules[template.SHM] = "write"
    rules[template.TMP] = "write"
    rules[template.WORKSPACE] = "write_exec" if _workspace_executable(spec) else "write"
    return rules.items()


def _view(spec: Spec) -> View:
    binds = [Bind(_pinned(bind.source), bind.where(), bind.executable, bind.optional) for bind in spec.root.binds]
    shown = [bind.where() for bind in spec.root.binds if bind.source == bind.where() and bind.executable]
    for package in spec.packages:
        if not any(package.path.startswith(target + "/") for target in shown):
            binds.append(Bind(_pinned(package.path), package.path, executable=True, optional=package.optional))
    return View(
        image=_pinned(spec.root.image.path) if spec.root.image is not None else "",
        binds=tuple(sorted(binds, key=lambda bind: bind.target)),
        symlinks=tuple((link.path, link.to) for link in spec.root.symlinks),
        files=tuple((file.path, file.content) for file in spec.root.files),
    )


def _pinned(path: str) -> str:
    """Where it leads now, checked. The spawner follows no link, so who can change one changes nothing that is shown."""
    resolved = os.path.realpath(path)
    if (problem := checks.source_problem(resolved)) is not None:
        raise ProfileInvalid(problem)
    return resolved


def _workspace_executable(spec: Spec) -> bool:
    return spec.workspace is not None and spec.workspace.executable


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sandboxd.profile.compile", description="compile profiles for the spawner")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="profile files, or directories of them")
    parser.add_argument("--memfd", choices=[how.value for how in Memfd], default=Memfd.SYSCTL.value)
    parser.add_argument("--protect", action="append", default=[], metavar="DIR", help="never shown in a sandbox")
    options = parser.parse_args(arguments)
    try:
        profiles = load_profiles(options.paths, protected=options.protect)
        templates = tuple(compiled(profile, Memfd(options.memfd)) for profile in profiles)
    except (ProfileInvalid, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(template.dump(templates))
    return 0


if __name__ == "__main__":
    sys.exit(main())
