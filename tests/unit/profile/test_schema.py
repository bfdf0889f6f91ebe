import pytest
from pydantic import ValidationError

from sandboxd.profile.schema import Allow, Bind, LimitSpec, SandboxProfile


@pytest.mark.parametrize(
    ("text", "size"), [("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("10KB", 10_000), ("7", 7), (4096, 4096), ("2B", 2)]
)
def test_sizes_are_bytes_or_text_with_a_unit(text: object, size: int) -> None:
    assert LimitSpec.model_validate({"memory_bytes": text}).memory_bytes == size


@pytest.mark.parametrize(
    "bad", ["512 megs", "-1", "1e9", "", True, 1.5, "99999999999999999999", "2000000GiB", None, []]
)
def test_other_sizes_are_refused(bad: object) -> None:
    if bad is None:
        assert LimitSpec.model_validate({"memory_bytes": bad}).memory_bytes is None
        return
    with pytest.raises(ValidationError):
        LimitSpec.model_validate({"memory_bytes": bad})


@pytest.mark.parametrize("bad", [True, "5", float("nan"), float("inf"), -1, 10**9])
def test_durations_are_plain_numbers_of_seconds(bad: object) -> None:
    with pytest.raises(ValidationError):
        LimitSpec.model_validate({"wall_seconds": bad})


def test_every_path_and_every_syscall_group_needs_its_why() -> None:
    with pytest.raises(ValidationError):
        Bind.model_validate({"source": "/usr"})
    with pytest.raises(ValidationError):
        Allow.model_validate({"names": ["read"]})


def test_a_bind_appears_at_its_own_path_unless_told_otherwise() -> None:
    assert Bind(source="/opt/x", why="a test of it").where() == "/opt/x"
    assert Bind(source="/opt/x", target="/y", why="a test of it").where() == "/y"


def test_an_unknown_version_or_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="apiVersion"):
        SandboxProfile.model_validate(
            {"apiVersion": "v2", "kind": "SandboxProfile", "metadata": {"name": "a"}, "spec": {}}
        )
