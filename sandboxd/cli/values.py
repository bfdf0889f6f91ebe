"""Reads the values of command line options: sizes, times, pairs, files. `Mistake` says what is wrong and what to write.

Knows no daemon. Used by `sandboxctl run`.
"""

import math
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sandboxd.cli.mistake import Mistake
from sandboxd.client.model import InputFile
from sandboxd.client.request import LIMIT_NAMES

_SIZES: Mapping[str, int] = {
    "": 1,
    "B": 1,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
_TIMES: Mapping[str, float] = {"": 1, "MS": 0.001, "S": 1, "M": 60, "H": 3600}
_COUNTS: Mapping[str, int] = {"": 1}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def limits(pairs: Iterable[str]) -> dict[str, float]:
    """`memory=512MiB wall=10s cpus=1.5` by the names of the API, whose unit may be left out."""
    found: dict[str, float] = {}
    for key, value in _pairs("--limit", pairs):
        name = _limit_name(key)
        found[name] = _quantity(name, key, value)
    return found


def environment(pairs: Iterable[str]) -> dict[str, str]:
    return dict(_pairs("--env", pairs))


def labels(pairs: Iterable[str]) -> dict[str, str]:
    return dict(_pairs("--label", pairs))


def input_files(pairs: Sequence[str]) -> dict[str, InputFile]:
    """`HOST:PATH`, or `HOST` alone, which keeps its name. An executable file stays one."""
    found: dict[str, InputFile] = {}
    for pair in pairs:
        host, separator, path = pair.rpartition(":")
        source = Path(host if separator else pair)
        name = path if separator else source.name
        if not name:
            raise Mistake(f"--file {pair!r} names no path in the workspace; write HOST:PATH")
        try:
            executable = source.stat().st_mode & 0o111
            found[name] = InputFile(source.read_bytes(), 0o755 if executable else 0o644)
        except OSError as error:
            raise Mistake(f"cannot read {str(source)!r}: {error.strerror}; name a readable file") from error
    return found


def _pairs(option: str, pairs: Iterable[str]) -> list[tuple[str, str]]:
    split = [(pair, *pair.partition("=")) for pair in pairs]
    for pair, key, separator, _ in split:
        if not separator or not key:
            raise Mistake(f"{option} {pair!r} is no pair; write KEY=VALUE")
    return [(key, value) for _, key, _, value in split]


def _limit_name(key: str) -> str:
    for name in (key, f"{key}_seconds", f"{key}_bytes", f"{key}_bytes_per_second"):
        if name in LIMIT_NAMES:
            return name
    raise Mistake(f"unknown limit {key!r}; one of {', '.join(map(_short, LIMIT_NAMES))}")


def _short(name: str) -> str:
    """The shortest key that means this limit."""
    for suffix in ("_bytes_per_second", "_seconds", "_bytes"):
        short = name.removesuffix(suffix)
        if short != name and _limit_name(short) == name:
            return short
    return name


def _quantity(name: str, key: str, value: str) -> float:
    units: Mapping[str, float]
    units, example = _COUNTS, "64 or 1.5"
    if name.endswith("_seconds"):
        units, example = _TIMES, "10s, 500ms or 2m"
    elif "_bytes" in name:
        units, example = _SIZES, "512MiB or 1GB"
    match = _NUMBER.fullmatch(value)
    if match is None or match[2].upper() not in units:
        raise Mistake(f"--limit {key}={value!r} is no value for it; write for example {key}={example}")
    amount = float(match[1]) * units[match[2].upper()]
    if math.isinf(amount):
        raise Mistake(f"--limit {key}={value[:40]!r}… is more than a number can be; write for example {key}={example}")
    return int(amount) if amount == int(amount) else amount


def signal_number(name: str) -> int:
    """`TERM`, `SIGTERM` or `15`."""
    try:
        return (
            signal.Signals(int(name)) if name.isdecimal() else signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"]
        )
    except (KeyError, ValueError) as error:
        raise Mistake(f"unknown signal {name!r}; write for example TERM or 15") from error
