from pathlib import Path

import pytest

from sandboxd.cli import values
from sandboxd.cli.mistake import Mistake
from sandboxd.client import InputFile
from sandboxd.client.request import LIMIT_NAMES


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("memory=512MiB", ("memory_bytes", 512 << 20)),
        ("memory=1GB", ("memory_bytes", 10**9)),
        ("memory_bytes=4096", ("memory_bytes", 4096)),
        ("memory=1.5K", ("memory_bytes", 1536)),
        ("wall=10s", ("wall_seconds", 10)),
        ("wall=500ms", ("wall_seconds", 0.5)),
        ("idle=2m", ("idle_seconds", 120)),
        ("cpus=1.5", ("cpus", 1.5)),
        ("cpu=3", ("cpu_seconds", 3)),
        ("pids=16", ("pids", 16)),
        ("stdout=64kib", ("stdout_bytes", 65536)),
        ("output_files=3", ("output_files", 3)),
        ("output_files_bytes=3M", ("output_files_bytes", 3 << 20)),
        ("io_read=1MB", ("io_read_bytes_per_second", 10**6)),
    ],
)
def test_limit_is_read_with_its_unit(pair: str, expected: tuple[str, float]) -> None:
    assert values.limits([pair]) == dict([expected])


@pytest.mark.parametrize(
    "pair",
    ["memory=10s", "wall=1MiB", "pids=1K", "memory=-1", "memory=", "memory=1e9", "cpus=nan", f"wall={'9' * 400}"],
)
def test_unit_that_does_not_fit_is_refused_with_an_example(pair: str) -> None:
    with pytest.raises(Mistake, match="write for example"):
        values.limits([pair])


def test_unknown_limit_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Mistake, match="unknown limit 'ram'; one of wall, idle"):
        values.limits(["ram=1"])


def test_every_limit_of_the_api_can_be_given_by_its_name() -> None:
    for name in LIMIT_NAMES:
        assert values.limits([f"{name}=1"]) == {name: 1}


@pytest.mark.parametrize("pair", ["A", "=b", ""])
def test_pair_without_a_key_is_refused(pair: str) -> None:
    with pytest.raises(Mistake, match="write KEY=VALUE"):
        values.environment([pair])


def test_value_may_hold_an_equals_sign() -> None:
    assert values.environment(["A=b=c"]) == {"A": "b=c"}
    assert values.labels(["a="]) == {"a": ""}


def test_file_keeps_its_bytes_its_name_and_whether_it_executes(tmp_path: Path) -> None:
    plain, tool = tmp_path / "a:b.txt", tmp_path / "tool"
    plain.write_bytes(b"\0\xff")
    tool.write_bytes(b"#!")
    tool.chmod(0o700)
    assert values.input_files([f"{plain}:in/x", str(tool)]) == {
        "in/x": InputFile(b"\0\xff", 0o644),
        "tool": InputFile(b"#!", 0o755),
    }


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="none"):
        values.input_files([f"{tmp_path}/none:x"])
    with pytest.raises(Mistake, match="write HOST:PATH"):
        values.input_files([f"{tmp_path}:"])


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "term", "15"])
def test_signal_has_many_spellings(name: str) -> None:
    assert values.signal_number(name) == 15


@pytest.mark.parametrize("name", ["0", "99", "FOO", "-1", ""])
def test_unknown_signal_is_refused(name: str) -> None:
    with pytest.raises(Mistake, match="unknown signal"):
        values.signal_number(name)
