import hashlib

import pytest

from sandboxd.analysis.analyser import NOTHING
from sandboxd.errors import Unenforceable
from sandboxd.model import ArgvProgram, CodeProgram, ExecuteRequest, InputFile
from sandboxd.requested import RESERVED, refuse_reserved, start_of
from tests.unit.rpc.conftest import PROFILE

PLAIN = ExecuteRequest(ArgvProgram(("/bin/true", "x")))


@pytest.mark.parametrize("name", RESERVED)
def test_a_field_that_nothing_serves_is_refused_by_name(name: str) -> None:
    value: object = True if name == "detach" else "x"
    with pytest.raises(Unenforceable, match=f"^{name} ") as caught:
        refuse_reserved(ExecuteRequest(ArgvProgram(("/bin/true",)), **{name: value}))  # type: ignore[arg-type]
    assert caught.value.reason == "not_supported"


def test_a_request_without_them_passes() -> None:
    refuse_reserved(PLAIN)


def test_policy_is_told_names_and_sizes_and_no_contents() -> None:
    request = ExecuteRequest(
        CodeProgram("python", "print('\udcff')"),
        stdin=b"secret",
        env=(("TOKEN", "secret"),),
        files=(InputFile("a", b"secret"),),
    )
    action = start_of(request, PROFILE, NOTHING)
    assert (action.argv, action.language) == ((), "python")
    assert action.code_sha256 == hashlib.sha256(b"print('\xed\xb3\xbf')").hexdigest()
    assert (action.env_names, action.files, action.stdin_bytes) == (("TOKEN",), ("a",), 6)
    assert "secret" not in repr(action)


def test_policy_is_told_what_the_profile_comes_to() -> None:
    action = start_of(PLAIN, PROFILE, NOTHING)
    assert (action.argv, action.code_sha256) == (("/bin/true", "x"), "")
    assert (action.isolation, action.network, action.limits) == (PROFILE.isolation, PROFILE.network, PROFILE.limits)
