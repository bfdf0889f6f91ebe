from dataclasses import replace

import pytest

from sandboxd.errors import InvalidRequest
from sandboxd.profile.environment import compose
from sandboxd.profile.resolve import ResolvedProfile
from tests.unit.profile.profiles import profile


def granting(*patterns: str) -> ResolvedProfile:
    return replace(profile(), env_allowed=patterns)


def test_the_environment_is_what_the_profile_fixes_and_what_it_lets_be_set() -> None:
    env = dict(compose(profile(), (("APP_MODE", "x"),)))
    assert env["HOME"] == "/workspace"
    assert env["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert env["LANG"] == "C.UTF-8"
    assert env["APP_MODE"] == "x"


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "LD_AUDIT", "ld_preload", "PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "NODE_OPTIONS", "BASH_ENV",
        "ENV", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GLIBC_TUNABLES", "PERL5OPT", "BASH_FUNC_ls", "JAVA_TOOL_OPTIONS",
    ],
)  # fmt: skip
def test_names_that_run_other_code_are_refused_unless_listed_exactly(name: str) -> None:
    with pytest.raises(InvalidRequest, match="run other code") as caught:
        compose(granting("*"), ((name, "x"),))
    assert caught.value.reason == "env_not_allowed"
    assert (name, "x") in compose(granting(name), ((name, "x"),))


def test_fixed_names_stay_unless_listed_exactly() -> None:
    with pytest.raises(InvalidRequest, match="fixes it"):
        compose(granting("*"), (("PATH", "/workspace"),))
    assert dict(compose(profile(), (("TERM", "xterm"),)))["TERM"] == "xterm"


def test_a_profile_that_grants_nothing_takes_nothing() -> None:
    with pytest.raises(InvalidRequest, match="allowed are: none"):
        compose(profile("strict"), (("APP", "x"),))
    assert dict(compose(granting("APP_?"), (("APP_1", "x"),)))["APP_1"] == "x"
    with pytest.raises(InvalidRequest, match="APP_"):
        compose(granting("APP_?"), (("APP_12", "x"),))


@pytest.mark.parametrize(
    "env",
    [
        (("", "x"),),
        (("A=B", "x"),),
        (("A\0", "x"),),
        (("1A", "x"),),
        (("é", "x"),),
        (("A", "x\0"),),
        (("A", "\ud800"),),
        (("A", "x" * (1 << 17)),),
        (("A", "1"), ("A", "2")),
        tuple((f"A{n}", "x") for n in range(300)),
        tuple((f"A{n}", "x" * 60000) for n in range(5)),
    ],
)
def test_malformed_variables_are_refused(env: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidRequest):
        compose(granting("*"), env)


OURS = (("TRACEPARENT", "ours"),)


@pytest.mark.parametrize("patterns", [("*",), ("TRACE*",), ("TRACEPARENT",)])
def test_a_variable_of_ours_is_there_where_the_profile_lets_a_request_set_it(patterns: tuple[str, ...]) -> None:
    assert dict(compose(granting(*patterns), (), OURS))["TRACEPARENT"] == "ours"


@pytest.mark.parametrize("patterns", [(), ("APP_*",), ("traceparent",)])
def test_a_profile_that_lets_none_in_keeps_ours_out_too_and_refuses_nothing(patterns: tuple[str, ...]) -> None:
    assert "TRACEPARENT" not in dict(compose(granting(*patterns), (), OURS))


def test_what_a_request_or_the_profile_says_goes_before_ours() -> None:
    assert dict(compose(granting("*"), (("TRACEPARENT", "theirs"),), OURS))["TRACEPARENT"] == "theirs"
    fixing = replace(granting("*"), env=(("TRACEPARENT", "fixed"),))
    assert dict(compose(fixing, (), OURS))["TRACEPARENT"] == "fixed"
