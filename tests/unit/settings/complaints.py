"""What a configuration is told that cannot be taken."""

import pytest

from sandboxd import config
from sandboxd.errors import ConfigInvalid


def complaint(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        config.parse(text.encode(), "c.yaml")
    return caught.value.message
