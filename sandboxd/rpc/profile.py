"""ProfileService: shows the profiles that requests may name, as they were resolved. Bound to gRPC by `server`."""

from collections.abc import Callable

from sandboxd.profile.load import ProfileSet
from sandboxd.profile.resolve import ResolvedProfile
from sandboxd.rpc import convert
from sandboxd.rpc.interceptors import Call, Method, Unary
from sandboxd.rpc.v1 import profile_pb2

_LEVELS = {
    "require": profile_pb2.ENFORCEMENT_LEVEL_REQUIRE,
    "best_effort": profile_pb2.ENFORCEMENT_LEVEL_BEST_EFFORT,
}


class ProfileService:
    NAME = profile_pb2.DESCRIPTOR.services_by_name["ProfileService"].full_name

    def __init__(self, profiles: Callable[[], ProfileSet]) -> None:
        """`profiles` gives the set in force, which a reload replaces."""
        self._profiles = profiles

    def methods(self) -> dict[str, Method]:
        return {
            "ListProfiles": Unary(profile_pb2.ListProfilesRequest, self._list),
            "GetProfile": Unary(profile_pb2.GetProfileRequest, self._get),
        }

    async def _list(self, _message: profile_pb2.ListProfilesRequest, _call: Call) -> profile_pb2.ListProfilesResponse:
        profiles = self._profiles()
        return profile_pb2.ListProfilesResponse(
            profiles=[_profile(profiles.get(name), spec_json="") for name in sorted(profiles.names())]
        )

    async def _get(self, message: profile_pb2.GetProfileRequest, _call: Call) -> profile_pb2.GetProfileResponse:
        profile = self._profiles().get(message.name)
        return profile_pb2.GetProfileResponse(profile=_profile(profile, spec_json=profile.spec_json))


def _profile(profile: ResolvedProfile, spec_json: str) -> profile_pb2.Profile:
    return profile_pb2.Profile(
        name=profile.name,
        description=convert.text(profile.description),
        digest=profile.digest,
        isolation=convert.ISOLATIONS[profile.isolation],
        limits=convert.limits(profile.limits),
        network=profile.network,
        env=dict(profile.env),
        env_allowed=profile.env_allowed,
        cwd=profile.cwd,
        interpreters=[
            profile_pb2.Interpreter(language=interpreter.language, argv=interpreter.argv)
            for interpreter in profile.interpreters
        ],
        requirements=[
            profile_pb2.Requirement(guarantee=guarantee.value, level=_LEVELS[level])
            for guarantee, level in profile.enforcement
        ],
        labels=dict(profile.labels),
        warnings=profile.warnings,
        spec_json=spec_json,
    )
