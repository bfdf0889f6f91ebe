from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.incidents import Incidents


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Incidents]:
    made = Incidents(tmp_path)
    yield made
    await made.end()
