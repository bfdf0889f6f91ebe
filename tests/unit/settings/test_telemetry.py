import pytest
from pydantic import ValidationError

from sandboxd.settings.telemetry import Otlp, Telemetry

COLLECTOR = "http://127.0.0.1:4318"


def test_nothing_is_told_by_default() -> None:
    assert Telemetry().otlp is None and not Telemetry().measures


def test_with_a_collector_traces_and_metrics_are_told() -> None:
    settings = Telemetry(otlp=Otlp(url=COLLECTOR))
    assert (settings.traces, settings.measures, settings.sample_ratio) == (True, True, 1.0)
    assert not Telemetry(otlp=Otlp(url=COLLECTOR), metrics=False).measures


@pytest.mark.parametrize("key", [{"traces": True}, {"metrics": False}, {"sample_ratio": 0.5}])
def test_settings_without_a_collector_are_refused(key: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="has nowhere to go"):
        Telemetry.model_validate(key)


@pytest.mark.parametrize("url", [f"{COLLECTOR}/", f"{COLLECTOR}/otlp?x=1"])
def test_a_url_that_no_path_fits_behind_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="what stands before /v1/traces"):
        Otlp(url=url)


def test_a_token_goes_over_plain_http_to_loopback_only() -> None:
    Otlp(url=COLLECTOR, token_file="/etc/token")
    with pytest.raises(ValidationError, match="can be read on its way"):
        Otlp(url="http://collector.example:4318", token_file="/etc/token")


@pytest.mark.parametrize("key", [{"sample_ratio": 1.1}, {"sample_ratio": -0.1}, {"metrics_seconds": 0.5}, {"x": 1}])
def test_what_makes_no_sense_is_refused(key: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Telemetry.model_validate({"otlp": {"url": COLLECTOR}, **key})


def test_a_protocol_that_is_not_spoken_is_refused() -> None:
    with pytest.raises(ValidationError):
        Otlp.model_validate({"url": COLLECTOR, "protocol": "grpc"})
