"""A profile as the line of an execution uses it: complete, checked, with its digest; and the two ways to tighten it.

Never loosens: what a request asks for beyond the profile is refused, what policy demands is only ever the lesser of
both. Pure. Called by `load`, and by `execution` with each request.
"""

import hashlib
import json
from dataclasses import dataclass, replace

from sandboxd.errors import InvalidRequest, PolicyDenied, ProfileInvalid
from sandboxd.model import ExecuteRequest, Guarantee, Isolation, Limits, Obligations
from sandboxd.profile import limits as table
from sandboxd.profile.checks import REQUIRED
from sandboxd.profile.schema import Level, Spec
from sandboxd.profile.weaknesses import weaknesses

_STRENGTH = {Isolation.PROCESS: 0, Isolation.GVISOR: 1, Isolation.KATA: 2}
_NETWORK_WIDTH = {"none": 0, "loopback": 1}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How code of a language runs: `argv` has the placeholder {file}, which is written as `file_name`."""

    language: str
    argv: tuple[str, ...]
    file_name: str


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """`digest` is the SHA-256 of `canonical` and names the spawner's template; tightening leaves both as they are."""

    name: str
    description: str
    digest: str
    isolation: Isolation
    limits: Limits
    network: str
    env: tuple[tuple[str, str], ...]
    env_allowed: tuple[str, ...]
    cwd: str
    interpreters: tuple[Interpreter, ...]
    enforcement: tuple[tuple[Guarantee, Level], ...]
    labels: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    spec_json: str
    spec: Spec

    def level(self, guarantee: Guarantee) -> Level:
        return dict(self.enforcement)[guarantee]


def resolve(name: str, labels: tuple[tuple[str, str], ...], spec: Spec) -> ResolvedProfile:
    """From a spec that passed `checks.whole`."""
    if spec.isolation is None or spec.network is None or spec.cwd is None or spec.enforcement.default is None:
        raise ProfileInvalid(f"profile {name!r} is not complete")
    spec_json = json.dumps(
        spec.model_dump(mode="json", exclude={"extends", "without"}, exclude_none=True),
        sort_keys=True,
        separators=(",", ":"),
    )
    canonical = json.dumps({"labels": labels, "name": name, "spec": json.loads(spec_json)}, sort_keys=True)
    default = spec.enforcement.default
    return ResolvedProfile(
        name=name,
        description=spec.description,
        digest=hashlib.sha256(canonical.encode()).hexdigest(),
        isolation=spec.isolation,
        limits=Limits(**{limit: getattr(spec.limits, limit) for limit in table.RULES}),
        network=spec.network,
        env=tuple(sorted(spec.env.fixed.items())),
        env_allowed=spec.env.allow,
        cwd=spec.cwd,
        interpreters=tuple(Interpreter(item.language, item.argv, item.file_name) for item in spec.interpreters),
        enforcement=tuple(
            (guarantee, "require" if guarantee in REQUIRED else spec.enforcement.guarantees.get(guarantee, default))
            for guarantee in Guarantee
        ),
        labels=labels,
        warnings=weaknesses(spec),
        spec_json=spec_json,
        spec=spec,
    )


def tighten(profile: ResolvedProfile, request: ExecuteRequest) -> ResolvedProfile:
    """The profile with the request's overrides, each of which becomes `require`.

    `InvalidRequest`: override_unknown for a name or value that no limit has, override_not_tighter for more than the
    profile gives.
    """
    if not request.limits and not request.network and request.isolation in (None, profile.isolation):
        return profile
    required: set[Guarantee] = set()
    values: dict[str, float] = {}
    for name, value in request.limits:
        try:
            values[name] = table.checked(name, value)
        except table.BadLimit as error:
            raise InvalidRequest(str(error), reason="override_unknown") from error
        ceiling = table.get(profile.limits, name)
        if table.looser(name, value, ceiling):
            raise _not_tighter(profile, name, value, ceiling)
        required.add(table.RULES[name].guarantee)
    network = _network(profile, request.network)
    isolation = request.isolation or profile.isolation
    if _STRENGTH[isolation] < _STRENGTH[profile.isolation]:
        raise _not_tighter(profile, "isolation", isolation.value, profile.isolation.value)
    if network != profile.network:
        required.add(Guarantee.NETWORK_NONE)
    return replace(
        profile,
        limits=table.with_values(profile.limits, values.items()),
        network=network,
        isolation=isolation,
        enforcement=_requiring(profile, required),
    )


def oblige(profile: ResolvedProfile, obligations: Obligations, named: ResolvedProfile) -> ResolvedProfile:
    """The lesser of `profile` and what policy demands; what policy made smaller becomes `require`.

    `named` is the profile before the request tightened it. `PolicyDenied` for an obligation that cannot be understood
    (policy_malformed) or allows more than that (obligation_loosens): to ignore it would be to run what policy did not
    mean to allow.
    """
    if not obligations.limits and obligations.runtime_floor is None:
        return profile
    required: set[Guarantee] = set()
    values: dict[str, float] = {}
    for name, value in obligations.limits:
        try:
            table.checked(name, value)
        except table.BadLimit as error:
            raise PolicyDenied(f"policy's obligation is malformed: {error}", reason="policy_malformed") from error
        most = table.get(named.limits, name)
        if table.looser(name, value, most):
            raise PolicyDenied(
                f"policy's obligation {name}={value:g} is more than the {most:g} of profile {named.name!r}, and an "
                "obligation can only tighten",
                reason="obligation_loosens",
            )
        if table.looser(name, table.get(profile.limits, name), value):
            values[name] = min(value, values.get(name, value))
            required.add(table.RULES[name].guarantee)
    isolation = profile.isolation
    if obligations.runtime_floor is not None and _STRENGTH[obligations.runtime_floor] > _STRENGTH[isolation]:
        isolation = obligations.runtime_floor
    return replace(
        profile,
        limits=table.with_values(profile.limits, values.items()),
        isolation=isolation,
        enforcement=_requiring(profile, required),
    )


def _network(profile: ResolvedProfile, wanted: str) -> str:
    if not wanted:
        return profile.network
    if wanted not in _NETWORK_WIDTH:
        known = ", ".join(_NETWORK_WIDTH)
        raise InvalidRequest(f"network {wanted!r} is unknown; known are {known}", reason="override_unknown")
    if _NETWORK_WIDTH[wanted] > _NETWORK_WIDTH[profile.network]:
        raise _not_tighter(profile, "network", wanted, profile.network)
    return wanted


def _not_tighter(profile: ResolvedProfile, name: str, value: object, ceiling: object) -> InvalidRequest:
    return InvalidRequest(
        f"{name} {value!r} is more than profile {profile.name!r} gives ({ceiling!r}); a request can only tighten",
        reason="override_not_tighter",
        message_for_agent=f"{name} can be at most {ceiling} here",
    )


def _requiring(profile: ResolvedProfile, required: set[Guarantee]) -> tuple[tuple[Guarantee, Level], ...]:
    return tuple((guarantee, "require" if guarantee in required else level) for guarantee, level in profile.enforcement)
