from typing import get_args

import pytest

from sandboxd import config
from sandboxd.settings.sinks.syslog import FACILITIES, Facility
from tests.unit.settings.complaints import complaint


def test_each_facility_has_its_number() -> None:
    assert [name for name, _ in FACILITIES] == list(get_args(Facility))
    assert dict(FACILITIES)["local7"] == 23


@pytest.mark.parametrize(
    "url",
    ["unixgram:///dev/log", "unix:///run/s.sock", "tcp://127.0.0.1:514", "tcp://[::1]:601", "tls://siem.test:6514"],
)
def test_a_receiver_is_a_socket_or_a_host(url: str) -> None:
    assert config.parse(f"sinks: [{{type: syslog, url: '{url}'}}]".encode(), "c.yaml").sinks[0].name == "syslog"


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        ("url: 'udp://h:514'", "unknown scheme"),
        ("url: 'tcp://h'", "needs a host and a port"),
        ("url: 'tcp://:1'", "needs a host and a port"),
        ("url: 'tcp://h:1/path'", "needs a host and a port"),
        ("url: 'tls://u:p@h:1'", "more than an address"),
        ("url: 'tcp://h:1?x=y'", "more than an address"),
        ("url: 'tcp://h:99999'", "is not a URL"),
        ("url: 'unixgram://dev/log'", "names no socket"),
        ("url: 'unix:relative'", "names no socket"),
        (f"url: 'unix:///{'x' * 107}'", "names no socket"),
        ("url: 'tcp://h:1', ca: /x", "have no use but over tls"),
        ("url: 'tls://h:1', key: /x", "two halves"),
        ("facility: local9", "facility"),
        ("app_name: 'a b'", "app_name"),
        ("max_bytes: 100", "max_bytes"),
        ("enterprise: 0", "enterprise"),
        ("timeout_seconds: 0", "timeout_seconds"),
    ],
)
def test_complaint_names_what_is_wrong_with_a_syslog(sink: str, expected: str) -> None:
    assert expected in complaint(f"sinks:\n  - {{type: syslog, {sink}}}\n")
