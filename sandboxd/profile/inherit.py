"""Merges a profile with its parent, by the rules in `schema`: the child's word counts, lists add by key.

Pure: models in, model out; never looks at files or the host. Called by `load` along the chain of `extends`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sandboxd.errors import ProfileInvalid
from sandboxd.model import Guarantee
from sandboxd.profile.schema import (
    Allow,
    Deny,
    Enforcement,
    Env,
    Landlock,
    Level,
    LimitSpec,
    Root,
    Seccomp,
    Spec,
    Without,
)

_Item = TypeVar("_Item")


def merged(parent: Spec, child: Spec) -> Spec:
    """The child's spec completed by its parent's; `ProfileInvalid` if `without` names what the parent lacks."""
    without = child.without
    return Spec(
        description=child.description,
        isolation=child.isolation or parent.isolation,
        root=_root(parent.root, child.root, without),
        packages=_added(parent.packages, child.packages, lambda package: package.path, without.packages, "packages"),
        workspace=child.workspace or parent.workspace,
        proc=child.proc or parent.proc,
        network=child.network or parent.network,
        env=_env(parent.env, child.env, without),
        cwd=child.cwd or parent.cwd,
        interpreters=_added(
            parent.interpreters, child.interpreters, lambda item: item.language, without.interpreters, "interpreters"
        ),
        seccomp=_seccomp(parent.seccomp, child.seccomp, without),
        mediate=parent.mediate if child.mediate is None else child.mediate,
        report=parent.report if child.report is None else child.report,
        landlock=Landlock(
            scopes=parent.landlock.scopes if child.landlock.scopes is None else child.landlock.scopes,
            paths=_added(
                parent.landlock.paths, child.landlock.paths, lambda item: item.path, without.landlock, "landlock"
            ),
        ),
        limits=_limits(parent.limits, child.limits),
        enforcement=Enforcement(
            default=child.enforcement.default or parent.enforcement.default,
            guarantees=_guarantees(parent.enforcement, child.enforcement),
        ),
    )


def _added(
    parent: Sequence[_Item], child: Sequence[_Item], key: Callable[[_Item], str], without: Sequence[str], section: str
) -> tuple[_Item, ...]:
    _must_have((key(item) for item in parent), without, section)
    gone = {*without, *(key(item) for item in child)}
    return (*(item for item in parent if key(item) not in gone), *child)


def _must_have(keys: Iterable[str], without: Sequence[str], section: str) -> None:
    have = set(keys)
    for name in without:
        if name not in have:
            raise ProfileInvalid(f"without.{section}: {name!r} is not in the parent; remove it here")


def _root(parent: Root, child: Root, without: Without) -> Root:
    return Root(
        image=child.image or parent.image,
        binds=_added(parent.binds, child.binds, lambda bind: bind.where(), without.binds, "binds"),
        symlinks=_added(parent.symlinks, child.symlinks, lambda link: link.path, without.symlinks, "symlinks"),
        files=_added(parent.files, child.files, lambda file: file.path, without.files, "files"),
    )


def _env(parent: Env, child: Env, without: Without) -> Env:
    _must_have((*parent.fixed, *parent.allow), without.env, "env")
    fixed = {name: value for name, value in parent.fixed.items() if name not in without.env}
    allow = (pattern for pattern in parent.allow if pattern not in without.env)
    return Env(fixed={**fixed, **child.fixed}, allow=tuple(dict.fromkeys((*allow, *child.allow))))


def _seccomp(parent: Seccomp, child: Seccomp, without: Without) -> Seccomp:
    groups: tuple[Allow | Deny, ...] = (*parent.allow, *parent.deny)
    _must_have((name for group in groups for name in group.names), without.syscalls, "syscalls")
    said: tuple[Allow | Deny, ...] = (*child.allow, *child.deny)
    gone = {*without.syscalls, *(name for group in said for name in group.names)}
    return Seccomp(
        allow=(
            *(
                group.model_copy(update={"names": kept})
                for group in parent.allow
                if (kept := tuple(name for name in group.names if name not in gone))
            ),
            *child.allow,
        ),
        deny=(
            *(
                group.model_copy(update={"names": kept})
                for group in parent.deny
                if (kept := tuple(name for name in group.names if name not in gone))
            ),
            *child.deny,
        ),
    )


def _limits(parent: LimitSpec, child: LimitSpec) -> LimitSpec:
    return LimitSpec.model_validate({**parent.model_dump(exclude_none=True), **child.model_dump(exclude_none=True)})


def _guarantees(parent: Enforcement, child: Enforcement) -> dict[Guarantee, Level]:
    # a child's `default` speaks for every guarantee that the child itself does not name
    inherited = {} if child.default is not None else parent.guarantees
    return {**inherited, **child.guarantees}
