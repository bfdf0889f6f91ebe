"""The daemon's end of checking its own journal: a process of its own does it, and dies with the question.

Called by `audit.reader`.
"""

import asyncio
import json
import os
from pathlib import Path

from sandboxd.audit.verify import BadRecord, Fault, VerifyResult
from sandboxd.policy.rego_process import Status, Worker, WorkerGone, WorkerLate

SECONDS = 3600.0
_SCRIPT = Path(__file__).with_name("verify_worker.py")


class VerificationFailed(Exception):
    """It could not be told whether the journal is whole."""


async def verify_apart(journal: Path, public_pem: bytes, script: Path = _SCRIPT) -> VerifyResult:
    """Whoever cancels it ends the process as well."""
    starting = asyncio.create_task(asyncio.to_thread(Worker.start, script))
    try:
        worker = await asyncio.shield(starting)
    except asyncio.CancelledError:
        (await starting).kill()
        raise
    try:
        answer = await worker.ask(os.fsencode(journal) + b"\n" + public_pem, SECONDS)
    except (WorkerGone, WorkerLate) as error:
        raise VerificationFailed(f"the process that checks the journal has ended: {error}") from error
    finally:
        worker.abandon(late=False)
        await asyncio.to_thread(worker.kill)
    if answer.status is not Status.ANSWER:
        raise VerificationFailed(f"the journal cannot be read: {answer.text}")
    values = json.loads(answer.text)
    if (bad := values.pop("first_bad")) is not None:
        bad["fault"] = Fault(bad["fault"])
    return VerifyResult(**values, first_bad=None if bad is None else BadRecord(**bad))
