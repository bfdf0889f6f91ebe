"""SIGKILL of the daemon under load: the journal verifies each time, and holds all that callers were told.

`make soak` does it two hundred times.
"""

import random

import pytest

from tests import acknowledged
from tests.acknowledged import Told
from tests.daemon import Mode, start_daemon, wait_until_it_answers
from tests.skips import need_root

KILLS = 2
SETTINGS = "audit: {{checkpoint_seconds: 1, segment_bytes: 65536, durability: {}}}\nlog: {{level: warning}}\n"


@pytest.mark.parametrize("durability", ["write", "fsync"])
def test_a_killed_daemon_leaves_a_whole_journal_with_all_that_it_told(durability: str) -> None:
    need_root()
    told, chance = Told(), random.Random(durability)
    with start_daemon(Mode.ROOT, SETTINGS.format(durability)) as node:
        for _ in range(KILLS):
            found = acknowledged.kill_once(node, told, chance)
            assert found.ok, found.first_bad
            wait_until_it_answers(node)
        assert acknowledged.checked(node).ok
        assert acknowledged.not_on_record(node, told) == []
    assert told.ended
