import pytest

from sandboxd.trace_context import MAX_STATE_CHARS, TraceContext, context_of, is_trace_id, trace_id_of, traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{PARENT}-01"


def read(header: str, state: str = "") -> TraceContext:
    return context_of(header, state, lambda: "fresh")


@pytest.mark.parametrize("header", [HEADER, f"01-{TRACE}-{PARENT}-01-later-fields"])
def test_valid_header_is_taken(header: str) -> None:
    assert read(header, "vendor=1,other=2") == TraceContext(TRACE, PARENT, True, "vendor=1,other=2")
    assert trace_id_of(header, lambda: "fresh") == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
    ],
)
def test_invalid_header_gets_a_fresh_trace_and_no_state(header: str) -> None:
    assert read(header, "vendor=1") == TraceContext("fresh")
    assert trace_id_of(header, lambda: "fresh") == "fresh"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_lowest_flag_says_whether_the_caller_records_it(flags: str, sampled: bool) -> None:
    assert read(f"00-{TRACE}-{PARENT}-{flags}").sampled is sampled


@pytest.mark.parametrize("state", ["x" * (MAX_STATE_CHARS + 1), "a=1\r\nx: y", "a=\u00e9", "a=\x00"])
def test_state_that_no_header_can_hold_is_dropped_and_the_trace_kept(state: str) -> None:
    assert read(HEADER, state) == TraceContext(TRACE, PARENT, True)


def test_trace_id_is_sixteen_bytes_of_lower_case_hex_and_not_zero() -> None:
    assert is_trace_id(TRACE)
    assert not any(map(is_trace_id, ("", "0" * 32, TRACE.upper(), TRACE + "0", TRACE + "\n")))


def test_header_is_written_as_it_is_read() -> None:
    assert traceparent(TRACE, PARENT, sampled=True) == HEADER
    assert read(traceparent(TRACE, PARENT, sampled=False)) == TraceContext(TRACE, PARENT, False)
