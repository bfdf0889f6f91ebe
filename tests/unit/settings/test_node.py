from pathlib import Path

import pytest

from sandboxd import config
from sandboxd.listening import Loopback
from tests.unit.settings.complaints import complaint


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("127.0.0.1:9464", Loopback("127.0.0.1", 9464)),
        ("unix:///run/x/metrics.sock", Path("/run/x/metrics.sock")),
    ],
)
def test_metrics_are_read_at_loopback_or_beside_the_api(listen: str, found: object) -> None:
    text = f"listen: [{{unix: /run/x/s.sock}}]\nmetrics: {{listen: '{listen}'}}\n"
    assert config.parse(text.encode(), "c.yaml").metrics.place == found


def test_metrics_are_nowhere_unless_asked_for() -> None:
    assert config.load(None).metrics.place is None


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ("0.0.0.0:9464", "c.yaml:3: metrics.listen: can be reached from elsewhere"),
        ("localhost:9464", "c.yaml:3: metrics.listen: is no address with a port"),
        ("unix:///run/y/metrics.sock", "must be another socket beside '/run/x/s.sock'"),
        ("unix:///run/x/s.sock", "must be another socket beside '/run/x/s.sock'"),
        ("unix:///run/x/s.sock.lock", "must be another socket beside '/run/x/s.sock'"),
        ("unix:///run/x/inner/metrics.sock", "must be another socket beside '/run/x/s.sock'"),
    ],
)
def test_metrics_elsewhere_are_refused(metrics: str, says: str) -> None:
    assert says in complaint(f"listen: [{{unix: /run/x/s.sock}}]\nmetrics:\n  listen: '{metrics}'\n")
