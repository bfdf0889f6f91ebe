import pytest

from sandboxd.profile import arming, seccomp
from sandboxd.profile.seccomp import Memfd
from tests.unit.profile.profiles import profile, shipped


def test_all_shipped_profiles_but_strict_let_a_program_start() -> None:
    lets = {
        each.name: arming.lets_a_program_start(seccomp.meaning(each.spec.seccomp, Memfd.SYSCTL)) for each in shipped()
    }
    assert lets == {name: name != "strict" for name in lets}
    assert "default" in lets


@pytest.mark.parametrize("name", sorted({name for name, _ in arming.steps()}))
def test_a_profile_that_refuses_any_step_does_not(name: str) -> None:
    whole = seccomp.meaning(profile("default").spec.seccomp, Memfd.SYSCTL)
    without = seccomp.Meaning({k: v for k, v in whole.allowed.items() if k != name}, whole.errnos)
    assert arming.lets_a_program_start(whole)
    assert not arming.lets_a_program_start(without)
