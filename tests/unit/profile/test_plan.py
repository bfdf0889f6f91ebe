import pytest

from sandboxd.errors import InvalidRequest, Unenforceable
from sandboxd.model import ArgvProgram, CodeProgram, ExecuteRequest, InputFile, State
from sandboxd.profile.plan import plan
from sandboxd.profile.resolve import tighten
from tests.unit.profile.profiles import capabilities, profile


def test_a_plan_carries_all_that_launch_and_exec_need() -> None:
    request = ExecuteRequest(
        CodeProgram("bash", "true"),
        stdin=b"in",
        env=(("APP", "1"),),
        cwd="sub",
        files=(InputFile("sub/a", b"a"),),
        collect=("out/*",),
        limits=(("pids", 5.0),),
    )
    made = plan(tighten(profile(), request), request, capabilities(), "s1", "e1")
    assert (made.launch.sandbox_id, made.launch.template_digest) == ("s1", profile().digest)
    assert made.launch.limits.pids == made.exec.limits.pids == 5
    assert made.exec.execution_id == "e1"
    assert made.exec.argv == ("/bin/bash", "/workspace/main.sh")
    assert (made.exec.cwd, made.exec.stdin, made.exec.collect) == ("/workspace/sub", b"in", ("out/*",))
    assert [file.path for file in made.exec.files] == ["sub/a", "main.sh"]
    assert ("APP", "1") in made.exec.env
    assert made.report.runtime == "process"


def test_a_required_limit_of_the_request_that_cannot_be_enforced_refuses() -> None:
    request = ExecuteRequest(ArgvProgram(("/bin/true",)), limits=(("memory_bytes", 2.0**26),))
    without_cgroups = capabilities(LIMIT_MEMORY=State.DEGRADED)
    assert plan(profile(), request, without_cgroups, "s", "e")
    with pytest.raises(Unenforceable, match=r"limit\.memory"):
        plan(tighten(profile(), request), request, without_cgroups, "s", "e")


@pytest.mark.parametrize(
    "request_",
    [
        ExecuteRequest(ArgvProgram(())),
        ExecuteRequest(ArgvProgram(("x",)), env=(("LD_PRELOAD", "x"),)),
        ExecuteRequest(ArgvProgram(("x",)), cwd=".."),
        ExecuteRequest(ArgvProgram(("x",)), collect=("/etc/shadow",)),
        ExecuteRequest(ArgvProgram(("x",)), files=(InputFile("../x", b""),)),
    ],
)
def test_malformed_requests_are_invalid(request_: ExecuteRequest) -> None:
    with pytest.raises(InvalidRequest):
        plan(profile(), request_, capabilities(), "s", "e")
