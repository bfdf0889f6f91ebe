import pytest

from sandboxd.client import Accepted, Chunk, Result, RuntimeFailed, Stream
from sandboxd.client.failure import Progress
from sandboxd.client.stream import EventReader, Output, Whole
from sandboxd.rpc.v1 import sandbox_pb2
from tests.fakes.server import EXECUTION_ID, accepted, chunk, result


def test_result_carries_the_report_of_the_first_event() -> None:
    progress = Progress()
    reader = EventReader(progress)
    first, last = reader.read(accepted()), reader.read(result())
    assert isinstance(first, Accepted)
    assert isinstance(last, Result)
    assert last.enforcement is first.enforcement
    assert (progress.started, progress.execution_id) == (True, EXECUTION_ID)
    reader.finish()


def test_stream_is_not_finished_before_its_result() -> None:
    reader = EventReader(Progress())
    reader.read(accepted())
    with pytest.raises(RuntimeFailed) as caught:
        reader.finish()
    assert (caught.value.reason, caught.value.execution_id) == ("no_result", EXECUTION_ID)


def test_unknown_event_is_passed_over() -> None:
    assert EventReader(Progress()).read(sandbox_pb2.ExecuteEvent()) is None


def test_pieces_are_joined_by_stream() -> None:
    output = Output()
    for piece in (Chunk(Stream.STDOUT, 0, b"a"), Chunk(Stream.STDERR, 0, b"x"), None, Chunk(Stream.STDOUT, 1, b"b")):
        output.add(piece)
    assert (output.logs().stdout, output.logs().stderr) == (b"ab", b"x")


def test_whole_has_the_output_in_its_result() -> None:
    reader, whole = EventReader(Progress()), Whole()
    for message in (accepted(), chunk("stderr", b"e"), result(exit_code=2)):
        event = reader.read(message)
        assert event is not None
        whole.add(event)
    assert (whole.result().stderr, whole.result().exit_code) == (b"e", 2)


def test_whole_without_a_result_is_a_failure() -> None:
    with pytest.raises(RuntimeFailed):
        Whole().result()
