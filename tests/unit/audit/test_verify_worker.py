import json
import os
from pathlib import Path

from sandboxd.audit.key import public_pem
from sandboxd.audit.recorder import Recorder
from sandboxd.audit.verify_worker import answer
from sandboxd.host.confined import ANSWER, ASK, FAILED
from tests.fakes.events import violated


async def test_the_answer_is_what_verification_found(tmp_path: Path) -> None:
    recorder = Recorder.open(tmp_path, "n", "b", "write")
    await recorder.record(violated("x"))
    await recorder.close()
    status, text = answer(ASK, os.fsencode(tmp_path / "journal") + b"\n" + public_pem(tmp_path))
    told = json.loads(text)
    assert (status, told["records"], told["first_bad"]) == (ANSWER, told["last_seq"], None)


def test_what_cannot_be_read_is_an_answer_too(tmp_path: Path) -> None:
    assert answer(ASK, os.fsencode(tmp_path / "none") + b"\nno key")[0] == FAILED
