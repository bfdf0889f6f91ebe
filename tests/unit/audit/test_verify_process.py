import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.audit.key import parse_public, public_pem
from sandboxd.audit.recorder import Recorder
from sandboxd.audit.segment import segments
from sandboxd.audit.verify import Fault, verify
from sandboxd.audit.verify_process import VerificationFailed, verify_apart
from tests import proc
from tests.fakes.events import violated
from tests.unit.audit.looked_up import rewritten

HANGS = "import time\ntime.sleep(600)\n"


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Path]:
    recorder = Recorder.open(tmp_path, "n", "b", "write", segment_bytes=5000)
    for number in range(40):
        await recorder.record(violated(str(number)))
    await recorder.close()
    yield tmp_path


async def test_it_finds_what_verification_finds_here(state: Path) -> None:
    pem, journal = public_pem(state), state / "journal"
    good = await verify_apart(journal, pem)
    assert good.ok and good == verify(journal, parse_public(pem))
    assert (good.records, good.checkpoints > 1) == (good.last_seq, True)
    rewritten(segments(journal)[0].path, 2, node="x")
    bad = await verify_apart(journal, pem)
    assert bad == verify(journal, parse_public(pem))
    assert bad.first_bad is not None and (bad.first_bad.seq, bad.first_bad.fault) == (3, Fault.EDITED)
    assert replace(bad.first_bad, fault=Fault.MISSING) != bad.first_bad


async def test_a_journal_that_cannot_be_read_is_no_verdict(tmp_path: Path, state: Path) -> None:
    with pytest.raises(VerificationFailed, match="No such file"):
        await verify_apart(tmp_path / "none", public_pem(state))


async def test_a_process_that_dies_is_no_verdict(tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import os\nos._exit(3)\n")
    with pytest.raises(VerificationFailed, match="has ended"):
        await verify_apart(tmp_path, b"", script)


async def test_whoever_cancels_ends_the_process(tmp_path: Path) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)

    def running() -> list[int]:
        return [process.pid for process in proc.processes().values() if str(script) in process.argv]

    task = asyncio.create_task(verify_apart(tmp_path, b"", script))
    async with asyncio.timeout(30):
        while not running():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert running() == []
