import pytest

from sandboxd.client import EndReason, Result, Usage


@pytest.mark.parametrize(
    ("reason", "code", "ok"),
    [(EndReason.EXITED, 0, True), (EndReason.EXITED, 1, False), (EndReason.WALL_TIMEOUT, 0, False)],
)
def test_only_an_exit_with_code_zero_is_ok(reason: EndReason, code: int, ok: bool) -> None:
    assert Result("id", reason, code, None, Usage()).ok is ok
