"""A caller that is refused again and again, by a real daemon: the record stays small and every refusal is counted."""

from collections.abc import Mapping

import pytest

from sandboxd.client import SandboxdError
from tests.daemon import STOP_SECONDS, Mode, start_daemon
from tests.skips import need_root

SETTINGS = "audit: {refusals_per_minute: 5}\nlimits: {max_per_minute: 1}\n"


def count_of(record: Mapping[str, object]) -> int:
    fields = record["fields"]
    assert isinstance(fields, dict)
    return int(fields["count"])


def test_every_refusal_is_counted_and_few_are_on_record_by_themselves() -> None:
    need_root()
    with start_daemon(Mode.ROOT, SETTINGS) as daemon:
        with daemon.client() as client:
            assert client.run(["/bin/true"]).exit_code == 0
            for _ in range(100):
                with pytest.raises(SandboxdError) as caught:
                    client.run(["/bin/true"])
                assert caught.value.reason == "rate"
        daemon.process.terminate()
        daemon.process.wait(STOP_SECONDS)
        records = daemon.journal()
    counts = [count_of(record) for record in records if record["rule"] == "execution.refused"]
    assert sum(counts) == 100
    assert 5 <= len(counts) < 20
    assert len([record for record in records if record["rule"] == "execution.requested"]) == counts.count(1) + 1
