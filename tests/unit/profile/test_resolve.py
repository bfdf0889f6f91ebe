import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from sandboxd.errors import InvalidRequest, PolicyDenied
from sandboxd.model import ArgvProgram, ExecuteRequest, Guarantee, Isolation, Limits, Obligations
from sandboxd.profile.resolve import oblige, tighten
from tests.unit.profile.profiles import profile, shipped, small


def request(**changes: object) -> ExecuteRequest:
    return replace(ExecuteRequest(ArgvProgram(("/bin/true",))), **changes)  # type: ignore[arg-type]


def test_the_digest_follows_every_word_of_the_spec_and_nothing_else(tmp_path: Path) -> None:
    first = small(tmp_path)
    assert first.digest == small(tmp_path, "  name: small", "  name: small  # a comment").digest
    assert first.digest != small(tmp_path, "pids: 8", "pids: 9").digest
    assert first.digest != small(tmp_path, "  name: small", "  name: small\n  labels: {a: b}").digest
    assert len({each.digest for each in shipped()}) == len(shipped().names())
    assert json.loads(first.spec_json)["limits"]["pids"] == 8


def test_tightening_lowers_and_makes_it_required() -> None:
    found = tighten(profile(), request(limits=(("memory_bytes", 2.0**26), ("idle_seconds", 3.0))))
    assert (found.limits.memory_bytes, found.limits.idle_seconds) == (1 << 26, 3.0)
    assert found.level(Guarantee.LIMIT_MEMORY) == "require"
    assert profile().level(Guarantee.LIMIT_MEMORY) == "best_effort"
    assert found.digest == profile().digest


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_no_limit_can_be_raised_by_a_request(name: str) -> None:
    value = getattr(profile("build").limits, name)
    if value == 0:
        assert tighten(profile("build"), request(limits=((name, 1 << 20),)))
        found = replace(profile("build"), limits=replace(profile("build").limits, **{name: 1 << 20}))
        bad = 0.0
    else:
        found, bad = profile("build"), value + 1
    with pytest.raises(InvalidRequest) as caught:
        tighten(found, request(limits=((name, bad),)))
    assert caught.value.reason == "override_not_tighter"
    assert caught.value.message_for_agent


@pytest.mark.parametrize(
    "limits",
    [(("memry", 1.0),), (("pids", 1.5),), (("pids", -1.0),), (("wall_seconds", float("nan")),), (("env", 1.0),)],
)
def test_an_override_that_no_limit_has_is_refused(limits: tuple[tuple[str, float], ...]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tighten(profile(), request(limits=limits))
    assert caught.value.reason == "override_unknown"


def test_network_and_isolation_go_one_way() -> None:
    assert tighten(profile("build"), request(network="none")).network == "none"
    assert tighten(profile(), request(isolation=Isolation.GVISOR)).isolation is Isolation.GVISOR
    with pytest.raises(InvalidRequest, match="only tighten"):
        tighten(profile(), request(network="loopback"))
    with pytest.raises(InvalidRequest, match="unknown"):
        tighten(profile(), request(network="host"))
    with pytest.raises(InvalidRequest, match="only tighten"):
        tighten(replace(profile(), isolation=Isolation.KATA), request(isolation=Isolation.GVISOR))


def test_obligations_are_the_lesser_of_what_is_asked_for_and_what_policy_demands() -> None:
    asked = tighten(profile(), request(limits=(("wall_seconds", 2.0),)))
    most = float(profile().limits.memory_bytes)
    limits = (("pids", 4.0), ("memory_bytes", most), ("pids", 6.0), ("wall_seconds", 3.0))
    found = oblige(asked, Obligations(limits=limits, runtime_floor=Isolation.GVISOR), profile())
    assert (found.limits.pids, found.limits.memory_bytes, found.limits.wall_seconds) == (4, most, 2.0)
    assert found.isolation is Isolation.GVISOR
    assert found.level(Guarantee.LIMIT_PIDS) == "require"
    assert found.level(Guarantee.LIMIT_MEMORY) == "best_effort"
    strong = replace(profile(), isolation=Isolation.KATA)
    assert oblige(strong, Obligations(runtime_floor=Isolation.PROCESS), strong).isolation is Isolation.KATA


def test_an_obligation_that_would_loosen_denies() -> None:
    for name in ("pids", "memory_bytes", "wall_seconds"):
        more = getattr(profile().limits, name) + 1.0
        with pytest.raises(PolicyDenied, match=f"obligation {name}=.* is more than the .* of profile") as caught:
            oblige(profile(), Obligations(limits=((name, more),)), profile())
        assert caught.value.reason == "obligation_loosens"


def test_an_obligation_that_cannot_be_understood_denies() -> None:
    with pytest.raises(PolicyDenied) as caught:
        oblige(profile(), Obligations(limits=(("everything", 1.0),)), profile())
    assert caught.value.reason == "policy_malformed"


def test_the_floor_is_required_in_every_profile() -> None:
    for each in shipped():
        assert each.level(Guarantee.SECCOMP_ALLOWLIST) == "require"
        assert each.level(Guarantee.NETWORK_NONE) == "require"
    assert {level for _, level in profile("strict").enforcement} == {"require"}
    assert profile("build").level(Guarantee.FILESYSTEM_NOEXEC) == "best_effort"
