import pytest
import typer

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.telling import told
from sandboxd.client import errors as client_errors
from sandboxd.errors import PolicyInvalid


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Mistake("no such\x1b thing"), ["sandboxctl: no such\\x1b thing"]),
        (PolicyInvalid("one\ntwo"), ["sandboxctl: one", "sandboxctl: two"]),
        (client_errors.NotFound("no", reason="not_found"), ["sandboxctl: not_found: no"]),
    ],
)
def test_what_went_wrong_is_said_on_stderr_and_exits_125(
    error: Exception, said: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, told():
        raise error
    assert caught.value.exit_code == 125
    assert capfd.readouterr().err.splitlines() == said
