import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.event import ExecutionRequested, SandboxViolated
from sandboxd.settings.sinks.file import FileSettings
from sandboxd.sink import file
from sandboxd.sink.base import Reopens, Sink
from tests.fakes.events import made, violated
from tests.fakes.records import recorded, records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir(0o750)
    return tmp_path / "log" / "events.jsonl"


def sink(path: Path, **settings: object) -> Sink:
    return file.create(FileSettings.model_validate({"type": "file", "path": str(path), **settings}), "node")


async def test_each_record_is_a_line_of_falco_json(path: Path) -> None:
    made_sink = sink(path)
    await made_sink.send(records(3))
    await made_sink.send(records(2, first=4))
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["output_fields"]["audit.seq"] for event in found] == [1, 2, 3, 4, 5]
    await made_sink.close()


async def test_the_journals_own_lines_can_be_verified_as_it_is(path: Path) -> None:
    made_sink = sink(path, format="journal")
    wanted = [recorded(violated("\0\n\U0001f4a9\ud800", tenant='"')), *records(3, first=2)]
    await made_sink.send(wanted)
    assert [hashlib.sha256(line).hexdigest() for line in path.read_bytes().splitlines()] == [
        record.digest for record in wanted
    ]
    await made_sink.close()


@given(st.text(), st.lists(st.tuples(st.text(), st.text())), st.floats())
def test_a_line_is_the_journals_own_whatever_is_in_it(text: str, labels: list[tuple[str, str]], number: float) -> None:
    for event in (
        made(ExecutionRequested, tenant=text, command=text, labels=tuple(labels)),
        made(SandboxViolated, detail=number),
    ):
        record = recorded(event)
        assert hashlib.sha256(file.journal_line(record)[:-1]).hexdigest() == record.digest


async def test_on_reload_what_is_at_the_path_is_opened(path: Path) -> None:
    made_sink = sink(path)
    await made_sink.send(records(1))
    content = path.read_bytes()
    # The same file under the same name: only a reopening tells that somebody wrote to it.
    path.write_bytes(content + b"half a li")
    assert isinstance(made_sink, Reopens)
    made_sink.reopen()
    await made_sink.send(records(1))
    assert path.read_bytes() == content * 2
    await made_sink.close()


async def test_a_required_one_proves_that_it_can_be_written(path: Path) -> None:
    made_sink = sink(path)
    await made_sink.send(())
    assert path.exists()
    path.parent.chmod(0o777)
    path.unlink()
    with pytest.raises(PermissionError, match="others may write there"):
        await made_sink.send(())
    await made_sink.close()
