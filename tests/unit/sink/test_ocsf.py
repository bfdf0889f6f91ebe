import json
import stat
from pathlib import Path

import pytest

from sandboxd.settings.sinks.ocsf import OcsfSettings
from sandboxd.sink import ocsf
from tests.fakes.records import records
from tests.ocsf import complaints


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir(0o750)
    return tmp_path / "log" / "ocsf.jsonl"


@pytest.mark.parametrize("raw_data", [True, False])
async def test_each_record_is_a_line_that_is_an_event(path: Path, *, raw_data: bool) -> None:
    sink = ocsf.create(OcsfSettings(type="ocsf", path=str(path), raw_data=raw_data), "node")
    await sink.send(records(3))
    await sink.send(records(2, first=4))
    await sink.close()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["metadata"]["sequence"] for event in events] == [1, 2, 3, 4, 5]
    assert all(complaints(event) == [] for event in events)
    assert all(("raw_data" in event) is raw_data for event in events)


async def test_the_file_is_private_and_rotated_as_that_of_the_sink_file(path: Path) -> None:
    sink = ocsf.create(OcsfSettings(type="ocsf", path=str(path), rotate_bytes=65536, keep=2), "node")
    for first in range(1, 120, 20):
        await sink.send(records(20, first=first))
    await sink.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["ocsf.jsonl", "ocsf.jsonl.1", "ocsf.jsonl.2"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert all(file.stat().st_size <= 65536 for file in files)
