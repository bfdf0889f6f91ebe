"""Every counter file as the kernels 6.1 and 6.18 write it."""

import os
from pathlib import Path

import pytest

from sandboxd.spawner import counters

MEMORY_EVENTS_6_1 = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 1\n"
MEMORY_EVENTS_6_18 = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 1\nsock_throttled 0\n"
CPU_STAT_V2_6_1 = (
    "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"
    "nr_periods 9\nnr_throttled 4\nthrottled_usec 77\nnr_bursts 0\nburst_usec 0\n"
)
CPU_STAT_V2_6_18 = (
    "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnice_usec 0\ncore_sched.force_idle_usec 0\n"
    "nr_periods 9\nnr_throttled 4\nthrottled_usec 77\nnr_bursts 0\nburst_usec 0\n"
)
CPU_STAT_V1 = "nr_periods 9\nnr_throttled 4\nthrottled_time 77000\nnr_bursts 0\nburst_time 0\nwait_sum 0\n"
IO_STAT = (
    "253:0 rbytes=4096 wbytes=512 rios=1 wios=1 dbytes=9 dios=1\n"
    "259:0 \n"
    "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=12\n"
)
BLKIO = (
    "253:0 Read 4096\n253:0 Write 512\n253:0 Sync 0\n253:0 Async 4608\n253:0 Discard 0\n253:0 Total 4608\n"
    "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 4611\n"
)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("memory.events", MEMORY_EVENTS_6_1, {"oom_kills": 1}),
        ("memory.events", MEMORY_EVENTS_6_18, {"oom_kills": 3}),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", {"oom_kills": 5}),
        ("memory.peak", "1048576\n", {"peak_memory_bytes": 1048576}),
        ("memory.max_usage_in_bytes", "2097152\n", {"peak_memory_bytes": 2097152}),
        ("cpu.stat", CPU_STAT_V2_6_1, {"cpu_user_seconds": 1.0, "cpu_system_seconds": 0.5, "cpu_throttled": 4}),
        ("cpu.stat", CPU_STAT_V2_6_18, {"cpu_user_seconds": 1.0, "cpu_system_seconds": 0.5, "cpu_throttled": 4}),
        ("cpu.stat", CPU_STAT_V1, {"cpu_throttled": 4}),
        ("cpuacct.usage_user", "2500000000\n", {"cpu_user_seconds": 2.5}),
        ("cpuacct.usage_sys", "500000000\n", {"cpu_system_seconds": 0.5}),
        ("pids.peak", "17\n", {"peak_pids": 17}),
        ("pids.events", "max 6\n", {"pids_denied": 6}),
        ("io.stat", IO_STAT, {"io_read_bytes": 4097, "io_write_bytes": 514}),
        ("io.stat", "", {"io_read_bytes": 0, "io_write_bytes": 0}),
        ("blkio.throttle.io_service_bytes_recursive", BLKIO, {"io_read_bytes": 4097, "io_write_bytes": 514}),
        ("blkio.throttle.io_service_bytes_recursive", "Total 0\n", {"io_read_bytes": 0, "io_write_bytes": 0}),
    ],
)
def test_kernel_text_becomes_numbers(name: str, text: str, expected: dict[str, float]) -> None:
    assert dict(counters.parse({name: text})) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "\n", "max\n", "nonsense", "oom_kill -1\n", "oom_kill 1 2\n", "1048576x\n"])
@pytest.mark.parametrize("name", ["memory.events", "memory.peak", "cpu.stat", "pids.events"])
def test_unknown_text_yields_no_number(name: str, text: str) -> None:
    assert counters.parse({name: text}) == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.peak", "{}\n"),
        ("cpu.stat", "user_usec {}\n"),
        ("io.stat", "8:0 rbytes={}\n"),
        ("blkio.throttle.io_service_bytes_recursive", "8:0 Read {}\n"),
    ],
)
def test_number_of_more_than_64_bits_is_not_counted(name: str, text: str) -> None:
    assert sum(value for _, value in counters.parse({name: text.format("9" * 400)})) == 0


def test_file_of_an_unknown_name_is_ignored() -> None:
    assert counters.parse({"memory.pressure": "some 1"}) == ()


def test_descriptors_are_read_from_their_beginning_each_time(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "pids.peak", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"7\n", 0)
        assert counters.read({"pids.peak": fd}) == (("peak_pids", 7.0),)
        os.pwrite(fd, b"9\n", 0)
        assert counters.read({"pids.peak": fd, counters.OOM: fd}) == (("peak_pids", 9.0),)
    finally:
        os.close(fd)


def test_descriptor_that_cannot_be_read_is_left_out() -> None:
    read_end, write_end = os.pipe()
    try:
        assert counters.read({"pids.peak": read_end}) == ()  # pread of a pipe is ESPIPE
    finally:
        os.close(read_end)
        os.close(write_end)


def test_v1_and_v2_files_all_have_a_parser() -> None:
    for name in (*counters.V2_FILES, *(name for _, name in counters.V1_FILES)):
        assert counters.parse({name: "1\n"}) or counters.parse({name: "oom_kill 1\nmax 1\nnr_throttled 1\n"})


def test_what_adds_up_is_counted_from_the_start_and_a_peak_is_not() -> None:
    start = (("cpu_user_seconds", 0.5), ("io_read_bytes", 100.0), ("peak_pids", 3.0))
    now = (("cpu_system_seconds", 0.25), ("cpu_user_seconds", 0.75), ("io_read_bytes", 90.0), ("peak_pids", 4.0))
    assert dict(counters.since(start, now)) == {
        "cpu_system_seconds": 0.25,
        "cpu_user_seconds": 0.25,
        "io_read_bytes": 0.0,
        "peak_pids": 4.0,
    }
