"""The dashboard and the alert rules: valid to Prometheus' own tool, tested, and of metrics that there are."""

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.daemon import Mode, start_daemon
from tests.opa import free_port
from tests.promtool import promtool
from tests.skips import need_root

ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "deploy/observability"
DASHBOARD: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
ALERTS = "alerts.yaml"
_NAME = re.compile(r"\b(?:sandboxd|process|python)_[a-z_]+")
_SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def loaded(name: str) -> dict[str, Any]:
    document = YAML(typ="safe").load(OBSERVABILITY / name)
    assert isinstance(document, dict)
    return document


def rules() -> list[dict[str, Any]]:
    return [rule for group in loaded(ALERTS)["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


def used() -> set[str]:
    texts = (*expressions(), *(rule["expr"] for rule in rules()))
    return {_SUFFIX.sub("", name) for text in texts for name in _NAME.findall(text)}


def test_alert_rules_are_valid_and_have_no_flaw_that_prometheus_knows_of() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS,
                                                             cwd=OBSERVABILITY)  # fmt: skip


def test_alerts_fire_when_they_must_and_not_before() -> None:
    promtool("test", "rules", "alerts.test.yaml", cwd=OBSERVABILITY)


def test_each_alert_is_tested_silent_and_firing() -> None:
    tested = {test["name"]: test["alert_rule_test"] for test in loaded("alerts.test.yaml")["tests"]}
    assert set(tested) == {rule["alert"] for rule in rules()}
    for name, (silent, firing) in tested.items():
        assert (silent["alertname"], firing["alertname"]) == (name, name)
        assert not silent["exp_alerts"] and len(firing["exp_alerts"]) == 1


def test_each_alert_says_how_bad_it_is_and_what_to_look_at() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_each_metric_that_is_used_is_documented() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    assert used() - documented == set()


@pytest.mark.root
def test_each_metric_that_is_used_is_told_by_a_daemon_and_as_prometheus_wants_it() -> None:
    need_root()
    port = free_port()
    settings = f"metrics: {{listen: '127.0.0.1:{port}'}}\ntelemetry: {{otlp: {{url: 'http://127.0.0.1:1'}}}}\n"
    with start_daemon(Mode.ROOT, settings) as daemon:
        with daemon.client() as client:
            client.run(["/bin/true"])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with closing(connection):
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
    told = set(re.findall(r"^# TYPE ([a-z_]+) ", page, re.MULTILINE))
    assert used() - told == set()
    promtool("check", "metrics", stdin=page)


def test_the_dashboard_is_one() -> None:
    assert DASHBOARD["uid"] == DASHBOARD["title"] == "sandboxd"
    assert DASHBOARD["schemaVersion"] >= 39
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) and len(panels()) > 20
    for panel in panels():
        assert panel["title"] and panel["type"] in ("stat", "timeseries")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, "of no installation in particular"
        assert [target["refId"] for target in panel["targets"]] == list("ABCDE"[: len(panel["targets"])])


def test_panels_do_not_cover_one_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_each_query_is_of_the_chosen_nodes_and_one_that_prometheus_understands(tmp_path: Path) -> None:
    texts = list(expressions())
    for text in texts:
        selected = re.findall(r"\b(?:sandboxd|process)_[a-z_]+(?!\w)(.{0,25})", text)
        assert selected and all(rest.startswith('{instance=~"$instance"') for rest in selected), text
    plain = [text.replace("$__rate_interval", "5m").replace("$instance", ".*") for text in texts]
    recorded = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(plain)]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    promtool("check", "rules", "--lint=none", str(tmp_path / "rules.yaml"))
