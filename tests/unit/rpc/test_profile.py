"""ProfileService shows profiles as they were resolved."""

import grpc
import pytest

from sandboxd.rpc.v1 import profile_pb2
from tests.unit.rpc.conftest import LIMITS, Served


async def test_profiles_are_listed_by_name_without_their_specification(served: Served) -> None:
    answer = await served.profile.ListProfiles(profile_pb2.ListProfilesRequest())
    assert [profile.name for profile in answer.profiles] == ["default", "python"]
    assert {profile.spec_json for profile in answer.profiles} == {""}


async def test_profile_is_shown_whole(served: Served) -> None:
    answer = await served.profile.GetProfile(profile_pb2.GetProfileRequest(name="python"))
    profile = answer.profile
    assert (profile.name, profile.description, profile.digest) == ("python", "runs Python", "cd" * 32)
    assert profile.limits.memory_bytes == LIMITS.memory_bytes
    assert (profile.network, profile.cwd, dict(profile.env)) == ("none", "/workspace", {"HOME": "/workspace"})
    assert (list(profile.env_allowed), dict(profile.labels)) == (["APP_*"], {"tier": "low"})
    assert [(item.language, list(item.argv)) for item in profile.interpreters] == [("python", ["python3", "{file}"])]
    assert [(item.guarantee, item.level) for item in profile.requirements] == [
        ("network.none", profile_pb2.ENFORCEMENT_LEVEL_REQUIRE),
        ("limit.io", profile_pb2.ENFORCEMENT_LEVEL_BEST_EFFORT),
    ]
    assert profile.warnings == ["its workspace may execute"]
    assert profile.spec_json == '{"network":"none"}'


async def test_unknown_profile_is_refused_with_the_known_ones(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.profile.GetProfile(profile_pb2.GetProfileRequest(name="nothing"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "python" in (caught.value.details() or "")
