import io

import pytest

from sandboxd.cli.tables import seconds, show, size


def test_cell_cannot_steer_the_terminal_nor_use_markup() -> None:
    out = io.StringIO()
    show("t", ("[red]h",), [("[bold]x[/bold]\x1b[2J",)], to=out)
    assert "[bold]x[/bold]\\x1b[2J" in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (0, "0 B"), (1536, "1.5 KiB"), (1 << 20, "1 MiB"), (5 << 40, "5120 GiB")]
)
def test_size_has_a_unit(count: int | None, text: str) -> None:
    assert size(count) == text


def test_time_that_was_not_measured_is_a_dash() -> None:
    assert (seconds(None), seconds(0.5)) == ("-", "0.500 s")
