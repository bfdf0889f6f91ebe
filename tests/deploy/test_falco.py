"""The Falco rules under deploy/ are of Falco's form, name fields that our events have, and fire on what they say.

There is no Falco to be had here: conditions are read by `tests.falco_filter`, the form is that of Falco's own schema of
rules (`userspace/engine/rule_json_schema.h`). What that does not prove, deploy/falco/README.md says.
"""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sandboxd.audit.line import ORIGIN, body, decode, encode
from sandboxd.event import Event
from sandboxd.sink.falco_event import derived_names, falco_line, field_name
from tests.fakes.events import made
from tests.falco_filter import Definitions, NoCondition, Test, parsed, shown
from tests.hostile import KINDS

FALCO = Path(__file__).resolve().parents[2] / "deploy" / "falco"
PRIORITIES = {"EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "INFORMATIONAL", "DEBUG"}
KEYS = {
    "rule": {"rule", "desc", "condition", "output", "priority", "source", "tags"},
    "macro": {"macro", "condition"},
    "list": {"list", "items"},
    "required_plugin_versions": {"required_plugin_versions"},
}
TOP = {"time", "rule", "priority", "source", "hostname", "output", "tags"}
KIND = {kind.rule: kind for kind in KINDS}

# For each rule the events that it is for, and beside each what makes it so.
FIRES: dict[str, list[tuple[str, dict[str, object]]]] = {
    "Sandboxd policy denied an action": [
        ("policy.decided", {"verdict": "deny"}),
        ("process.exec_decided", {"verdict": "deny"}),
    ],
    "Sandboxd confinement was tried": [("sandbox.violated", {})],
    "Sandboxd system call denied": [("syscall.denied", {})],
    "Sandboxd execution refused in number": [("execution.refused", {"suppressed": 9})],
    "Sandboxd execution ended by a limit": [("execution.ended", {"end_reason": "MEMORY_LIMIT"})],
    "Sandboxd guarantee absent": [("execution.started", {"absent": ("memory",)})],
    "Sandboxd approval vote refused": [("approval.refused", {})],
    "Sandboxd approval denied": [("approval.denied", {})],
    "Sandboxd policy cannot be loaded": [("policy.reload_failed", {}), ("policy.shadow_failed", {})],
    "Sandboxd journal has a gap": [("journal.gap", {})],
    "Sandboxd journal repaired": [("journal.repaired", {})],
    "Sandboxd sink missed records": [("sink.lagged", {}), ("sink.skipped", {})],
    "Sandboxd sink does not accept": [("sink.failed", {})],
    "Sandboxd response taken": [("response.taken", {})],
    "Sandboxd response refused": [("response.refused", {})],
    "Sandboxd daemon left sandboxes behind": [("daemon.started", {"recovered": 1})],
}
OF_THEMSELVES = {rule for fires in FIRES.values() for rule, values in fires if not values}


def load(name: str) -> object:
    return YAML(typ="safe").load(FALCO / name)


def entries() -> list[dict[str, object]]:
    found = load("sandboxd_rules.yaml")
    assert isinstance(found, list)
    return found


class Rules:
    """Read in the order of the file, as Falco reads them: a macro or list is there for what follows it."""

    def __init__(self) -> None:
        self.definitions = Definitions()
        self.conditions: dict[str, Test] = {}
        self.outputs: dict[str, str] = {}
        for entry in entries():
            match entry:
                case {"list": str(name), "items": list(items)}:
                    self.definitions.lists[name] = [str(item) for item in items]
                case {"macro": str(name), "condition": str(condition)}:
                    self.definitions.macros[name] = parsed(condition, self.definitions)
                case {"rule": str(name), "condition": str(condition), "output": str(output)}:
                    self.conditions[name] = parsed(condition, self.definitions)
                    self.outputs[name] = output

    def fired(self, event: Event) -> list[str]:
        line = falco_line(decode(encode(body(event), ORIGIN, "b", "n", 0)[:-1]))
        return [name for name, test in self.conditions.items() if test(json.loads(line))]


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules()


def test_each_entry_has_the_form_of_falcos_schema() -> None:
    for entry in entries():
        (kind,) = entry.keys() & KEYS
        assert entry.keys() == KEYS[kind], entry
        if kind == "rule":
            assert entry["priority"] in PRIORITIES and entry["source"] == "collector"
            assert isinstance(entry["tags"], list) and "sandboxd" in entry["tags"]
        if kind == "required_plugin_versions":
            versions = entry[kind]
            assert isinstance(versions, list)
            assert all(each.keys() == {"name", "version"} and isinstance(each["version"], str) for each in versions)


def test_each_macro_and_list_is_defined_once_and_used(rules: Rules) -> None:
    names = [str(entry[kind]) for entry in entries() for kind in ("macro", "list", "rule") if kind in entry]
    assert len(names) == len(set(names))
    assert rules.definitions.used == {*rules.definitions.macros, *rules.definitions.lists}


def test_each_field_that_a_rule_reads_or_shows_is_one_of_our_events(rules: Rules) -> None:
    ours = {f"/output_fields/{name}" for kind in KINDS for name in field_names(kind)} | {f"/{name}" for name in TOP}
    read = set(rules.definitions.pointers)
    for output in rules.outputs.values():
        assert all(name == "json.value" for name, _ in shown(output))
        read |= {pointer for _, pointer in shown(output)}
    assert read - ours == set()


def field_names(kind: type[Event]) -> set[str]:
    return {field_name(kind.rule, field.name) for field in dataclasses.fields(kind)} | set(derived_names(kind.rule))


def test_each_rule_shows_only_fields_of_the_events_that_it_is_for(rules: Rules) -> None:
    for name, output in rules.outputs.items():
        everywhere = set.intersection(*(field_names(KIND[rule]) for rule, _ in FIRES[name]))
        pointers = {pointer.removeprefix("/output_fields/") for _, pointer in shown(output)}
        assert {pointer for pointer in pointers if not pointer.startswith("/")} - everywhere == set(), name


@pytest.mark.parametrize(
    ("name", "rule", "values"),
    [(name, rule, values) for name, fires in FIRES.items() for rule, values in fires],
)
def test_each_rule_fires_on_what_it_is_for_and_no_other_does(
    rules: Rules, name: str, rule: str, values: dict[str, object]
) -> None:
    assert rules.fired(made(KIND[rule], tenant="t", **values)) == [name]


def test_each_rule_is_tried(rules: Rules) -> None:
    assert rules.conditions.keys() == FIRES.keys()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.rule not in OF_THEMSELVES], ids=lambda kind: kind.rule)
def test_what_is_in_order_fires_nothing(rules: Rules, kind: type[Event]) -> None:
    assert rules.fired(made(kind, tenant="t")) == []


def test_a_tenant_cannot_write_an_alert(rules: Rules) -> None:
    text = '"}, "rule": "sandbox.violated", "output_fields": {"opa.verdict": "deny"'
    for kind in KINDS:
        hints = {field.name: text for field in dataclasses.fields(kind) if field.type is str}
        told = rules.fired(made(kind, **hints))
        assert set(told) <= {name for name, fires in FIRES.items() if (kind.rule, {}) in fires}, kind.rule


def test_outputs_show_no_text_that_tenants_write(rules: Rules) -> None:
    tenants_text = re.compile(r"proc\.|agent\.|tool\.|message|detail|comment|labels|command|/output\]")
    assert [name for name, output in rules.outputs.items() if tenants_text.search(output)] == []


def test_the_configuration_loads_both_plugins_and_the_rules() -> None:
    found = load("falco.sandboxd.yaml")
    assert isinstance(found, dict)
    assert found.keys() == {"plugins", "load_plugins", "rules_files"}
    plugins = {plugin["name"]: plugin for plugin in found["plugins"]}
    assert list(plugins) == found["load_plugins"] == ["collector", "json"]
    assert all(plugin.keys() <= {"name", "library_path", "init_config", "open_params"} for plugin in plugins.values())
    parameters = json.loads(plugins["collector"]["open_params"])
    assert parameters.keys() == {"addr", "buffer"} and parameters["addr"].startswith("127.0.0.1:")
    assert [Path(path).name for path in found["rules_files"]] == ["sandboxd_rules.yaml"]
    required = next(entry["required_plugin_versions"] for entry in entries() if "required_plugin_versions" in entry)
    assert isinstance(required, list)
    assert {each["name"] for each in required} == set(plugins)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "and",
        "sandboxd",
        'json.value = "x"',
        "json.value[/rule] =",
        "json.value[/rule] in (a b)",
        "json.value[/rule] in (a",
        'json.value[/rule] = "x',
        "json.value[/a b] exists",
        "(json.value[/a] exists",
        "json.value[/a] exists json.value[/b] exists",
        "json.value[/a] equals x",
        'evt.type = "x"',
    ],
)
def test_what_is_no_condition_is_told(condition: str) -> None:
    with pytest.raises(NoCondition):
        parsed(condition, Definitions())


def test_conditions_mean_what_falco_takes_them_for() -> None:
    event = {"a": "x", "n": 3, "f": {"k.l": None, "t": True}}
    for condition, holds in (
        ("json.value[/a] = x and json.value[/n] = 3", True),
        ("json.value[/a] = y or json.value[/f/k.l] = null and json.value[/f/t] = true", True),
        ("not json.value[/a] in (x, y)", False),
        ("not (json.value[/a] = x)", False),
        ("json.value[/none] != x", False),
        ("not json.value[/none] = x", True),
        ("json.value[/none] exists", False),
        ("json.value[/a] in ()", False),
        ("json.value[/a] startswith x and not json.value[/a] contains 'q'", True),
    ):
        assert parsed(condition, Definitions())(event) is holds, condition
