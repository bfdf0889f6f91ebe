"""Tables for people, on rich. Every cell is plain text with control characters made visible: names come from programs.

Imported only by what prints a table: rich costs start-up time.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandboxd.cli.printable import printable

_WIDE = 200  # columns where there is no terminal to ask, so that nothing is cut in a pipe


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, to: TextIO | None = None) -> None:
    """Prints a table on stdout, or on `to`."""
    file = to if to is not None else sys.stdout
    table = Table(
        title=Text(printable(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=any(columns),
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(file=file, width=None if file.isatty() else _WIDE).print(table)


def size(count: int | None) -> str:
    """Bytes with a binary unit; `-` where nothing was measured."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{round(amount, 1):g} {unit}"
        amount /= 1024
    return f"{round(amount, 1):g} GiB"


def seconds(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:.3f} s"
