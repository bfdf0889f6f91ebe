"""The one document between the compiler child and the spawner."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from sandboxd.spawner import template
from sandboxd.spawner.template import TemplateInvalid
from tests.unit.spawner.spawner_rig import TEMPLATE


def test_templates_arrive_as_they_were() -> None:
    assert template.load(template.dump((TEMPLATE, TEMPLATE))) == (TEMPLATE, TEMPLATE)
    assert template.load(template.dump(())) == ()


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"templates": {}}', '{"templates": [1]}', "[" * 100_000])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(TemplateInvalid):
        template.load(text)


def _set(row: dict[str, Any], path: str, value: object) -> None:
    *above, last = path.split(".")
    for name in above:
        row = row[name]
    row[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("digest", 1),
        ("digest", None),
        ("workspace_executable", "no"),
        ("workspace_executable", 0),
        ("seccomp", "***"),
        ("seccomp", 7),
        ("ceilings.pids", "64"),
        ("ceilings.pids", True),
        ("ceilings.cpus", "1"),
        ("ceilings.cpus", 10**400),
        ("ceilings.cpus", math.inf),
        ("ceilings.cpus", math.nan),
        ("ceilings.more", 1),
        ("view.binds", [["a", "b", True, True]]),
        ("view.binds", [{"source": "a", "target": "b", "executable": 1, "optional": True}]),
        ("view.symlinks", [["a"]]),
        ("view.image", None),
        ("name", "\ud800"),
        ("landlock", [["/", "read", "more"]]),
        ("landlock", "ab"),
        ("more", 1),
    ],
)
def test_wrong_type_or_field_is_refused_by_name(path: str, value: object) -> None:
    document = json.loads(template.dump((TEMPLATE,)))
    _set(document["templates"][0], path, value)
    with pytest.raises(TemplateInvalid, match=r"^templates"):
        template.load(json.dumps(document))


@pytest.mark.parametrize("remove", [lambda row: row.pop("ceilings"), lambda row: row["view"].pop("image")])
def test_missing_field_is_refused(remove: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(template.dump((TEMPLATE,)))
    remove(document["templates"][0])
    with pytest.raises(TemplateInvalid, match="expected the fields"):
        template.load(json.dumps(document))
