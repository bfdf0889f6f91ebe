import pytest

from sandboxd.client import VersionMismatch
from sandboxd.client.version import check


def test_same_minor_is_silent() -> None:
    assert check("1.2.3", "1.2.9", ["v1"]) == ""


def test_other_minor_warns() -> None:
    assert "1.3.0" in check("1.2.3", "1.3.0", ["v1"])


@pytest.mark.parametrize(("daemon", "apis"), [("2.0.0", ["v1"]), ("1.2.3", ["v2"]), ("", ["v1"])])
def test_other_major_or_api_is_refused(daemon: str, apis: list[str]) -> None:
    with pytest.raises(VersionMismatch, match="update the older one"):
        check("1.2.3", daemon, apis)
