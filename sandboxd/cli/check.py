"""`sandboxd check`: the report of `host.check` as a table or as JSON. Looks at nothing itself."""

import dataclasses
import json
from pathlib import Path

from sandboxd.cli import tables
from sandboxd.config import Config
from sandboxd.host.check import CheckReport, check

SCHEMA = 1  # of the JSON, described in docs/check.md; keys may be added under the same number, not changed


def report(config: Config, *, as_json: bool) -> int:
    """Prints it and gives the exit code."""
    found = check(config.profile_paths, Path(config.state_dir))
    if as_json:
        told = {"schema": SCHEMA, **dataclasses.asdict(found), "exit_code": found.exit_code}
        print(json.dumps(told, indent=2))  # noqa: T201
    else:
        _tables(found)
    return found.exit_code


def _tables(found: CheckReport) -> None:
    tables.show(
        "",
        ("state", "feature", "found", "consequence"),
        [(row.state, row.feature, row.found, row.consequence) for row in found.rows],
    )
    if found.unstartable:
        tables.show("refused here", ("profile", "reason"), [(item.profile, item.reason) for item in found.unstartable])
    match found.exit_code:
        case 0:
            verdict = f"every profile can be enforced here (mode {found.mode})"
        case 1:
            verdict = f"profiles refused here: {', '.join(item.profile for item in found.unstartable)}"
        case _:
            verdict = "nothing can run here; see the rows that say missing"
    print(verdict)  # noqa: T201
