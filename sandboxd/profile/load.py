"""Reads profile files: bytes → checked, resolved profiles. Every complaint names its file and line.

A file's bytes are read once through one descriptor, and those bytes are what is used. Never follows a name out of a
profile to another file: `extends` names a profile of the same set. Called by the daemon and by `compile`.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ValidationError

from sandboxd.errors import InvalidRequest, ProfileInvalid
from sandboxd.profile import checks, mediation
from sandboxd.profile.document import MAX_BYTES, Document, read
from sandboxd.profile.document import Path as At
from sandboxd.profile.inherit import merged
from sandboxd.profile.resolve import ResolvedProfile, resolve
from sandboxd.profile.schema import SandboxProfile

MAX_PROFILES = 256
MAX_EXTENDS = 8
_MOST_COMPLAINTS = 20


@dataclass(frozen=True, slots=True)
class Source:
    """One file: what it says, and where."""

    document: Document
    profile: SandboxProfile

    def error(self, at: At, message: str) -> ProfileInvalid:
        return ProfileInvalid(f"{self.document.name}:{self.document.line(at)}: {message}")


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """Every profile of a node, complete and checked. Replaced whole on reload."""

    profiles: Mapping[str, ResolvedProfile]

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.profiles))

    def get(self, name: str) -> ResolvedProfile:
        """`InvalidRequest` (profile_unknown) names what there is."""
        if name not in self.profiles:
            known = ", ".join(self.names())
            raise InvalidRequest(f"profile {name!r} is unknown; known are {known}", reason="profile_unknown")
        return self.profiles[name]

    def __iter__(self) -> Iterator[ResolvedProfile]:
        return (self.profiles[name] for name in self.names())


def load_profiles(paths: Sequence[Path], *, protected: Sequence[str] = (), filters_proved: bool = False) -> ProfileSet:
    """Files, and directories of `*.yaml`; `protected` are directories of the daemon that no profile may show.

    `filters_proved`: the caller compares digests with templates that the spawner's compiler made, so this one need not
    compile the same filters again.
    """
    sources: dict[str, Source] = {}
    for path in _files(paths):
        source = parse(_bytes(path), str(path), protected)
        name = source.profile.metadata.name
        if name in sources:
            first = sources[name].document.name
            raise source.error(("metadata", "name"), f"profile {name!r} is already defined in {first}; rename one")
        sources[name] = source
    if not sources:
        raise ProfileInvalid(f"no profile in {', '.join(map(str, paths))}; expected files named *.yaml")
    resolved = {name: _resolved(source, sources, filters_proved) for name, source in sources.items()}
    return ProfileSet(resolved)


def parse(data: bytes, name: str, protected: Sequence[str] = ()) -> Source:
    """One file's bytes, checked by themselves (not yet with their parent). `ProfileInvalid` lists all complaints."""
    document = read(data, name)
    try:
        profile = SandboxProfile.model_validate(document.value)
    except ValidationError as error:
        complaints = [_complaint(document, detail["loc"], detail["type"], detail["msg"]) for detail in error.errors()]
        raise ProfileInvalid("\n".join(complaints[:_MOST_COMPLAINTS])) from error
    source = Source(document, profile)
    problems = [source.error(found.at, found.message).message for found in checks.own(profile.spec, protected)]
    if problems:
        raise ProfileInvalid("\n".join(problems[:_MOST_COMPLAINTS]))
    return source


def _complaint(document: Document, location: At, kind: str, message: str) -> str:
    keys = tuple(part for part in location if part != "[key]")
    place = f"{document.name}:{document.line(keys)}"
    name = ".".join(str(part) for part in keys)
    if kind == "extra_forbidden":
        known = _fields_at(keys[:-1])
        close = get_close_matches(str(keys[-1]), known, n=1)
        hint = f"; did you mean {close[0]!r}" if close else f"; known are {', '.join(sorted(known))}"
        return f"{place}: unknown key {keys[-1]!r}{hint}"
    return f"{place}: {name}: {message[:1].lower()}{message[1:]}"


def _fields_at(keys: At) -> list[str]:
    model: type[BaseModel] = SandboxProfile
    for key in keys:
        if isinstance(key, str) and key in model.model_fields:
            inner = _model_in(model.model_fields[key].annotation)
            model = inner if inner is not None else model
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    count = 0
    for path in paths:
        if path.is_dir():
            found = sorted(
                entry for entry in path.iterdir() if entry.suffix in (".yaml", ".yml") and entry.name[0] != "."
            )
        else:
            found = [path]
        for file in found:
            count += 1
            if count > MAX_PROFILES:
                raise ProfileInvalid(f"more than {MAX_PROFILES} profile files; split them over nodes")
            yield file


def _bytes(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise ProfileInvalid(f"{path}:1: cannot be read: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ProfileInvalid(f"{path}:1: not a regular file")
        if status.st_mode & stat.S_IWOTH:
            raise ProfileInvalid(f"{path}:1: everyone on the host can change it; chmod o-w {path}")
        return file.read(MAX_BYTES + 1)


def _resolved(source: Source, sources: Mapping[str, Source], filters_proved: bool) -> ResolvedProfile:
    chain = _with_parents(source, sources)
    try:
        spec = chain.pop().profile.spec
        while chain:
            spec = merged(spec, chain.pop().profile.spec)
        problems = list(checks.whole(spec))
        if problems:
            raise ProfileInvalid("; ".join(problems))
        if not filters_proved:
            mediation.filtered(spec)
    except ProfileInvalid as error:
        raise source.error(("spec",), error.message) from error
    metadata = source.profile.metadata
    return resolve(metadata.name, tuple(sorted(metadata.labels.items())), spec)


def _with_parents(source: Source, sources: Mapping[str, Source]) -> list[Source]:
    chain = [source]
    while (parent := chain[-1].profile.spec.extends) is not None:
        if parent not in sources:
            raise chain[-1].error(
                ("spec", "extends"), f"parent {parent!r} is unknown; known are {', '.join(sorted(sources))}"
            )
        chain.append(sources[parent])
        names = [link.profile.metadata.name for link in chain]
        if parent in names[:-1]:
            raise source.error(("spec", "extends"), f"profiles extend each other in a circle: {' → '.join(names)}")
        if len(chain) > MAX_EXTENDS:
            raise source.error(("spec", "extends"), f"more than {MAX_EXTENDS} profiles extend one another")
    return chain
