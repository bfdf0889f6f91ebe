"""`sandboxctl policy replay`: what is on record, decided again by another policy, and what of it would come out new."""

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from sandboxd.audit.history import Damage, Found, scan
from sandboxd.audit.line import timestamp
from sandboxd.audit.search import Search
from sandboxd.audit.store import DOCUMENTS, find_all
from sandboxd.cli import tables
from sandboxd.cli.mistake import Mistake
from sandboxd.cli.moment import ago_seconds
from sandboxd.cli.policy_engine import running, settings
from sandboxd.cli.printable import printable
from sandboxd.event import PolicyDecided
from sandboxd.policy.rego_bundle import read_bundle
from sandboxd.policy.replay import Outcome, Past, Result, replay
from sandboxd.settings.paths import state_directory
from sandboxd.settings.policy import Policy

UNCHANGED, CHANGED = 0, 1
MOST_EXAMPLES = 3


def run(bundle: Sequence[Path], since: str, state_dir: Path | None, key: Path | None, *, as_json: bool) -> int:
    """Prints it, and gives the exit code. Mistake if the record cannot be read; PolicyInvalid."""
    policy = settings(bundle, key)
    modules = read_bundle(policy.bundle_paths, policy.key_path).modules
    state = state_dir if state_dir is not None else state_directory(as_root=os.geteuid() == 0)
    past = _past(state / "journal", since)
    try:
        results, revision = asyncio.run(_again(policy, modules, past, state / DOCUMENTS))
    except OSError as error:
        raise Mistake(_unreadable(error, state / DOCUMENTS)) from error
    if as_json:
        print(json.dumps(_told(results, revision), indent=2))  # noqa: T201
    else:
        _show(results, revision, since)
    return CHANGED if any(result.outcome is Outcome.CHANGED for result in results) else UNCHANGED


async def _again(
    policy: Policy, modules: tuple[tuple[str, str], ...], past: Counter[Past], documents: Path
) -> tuple[tuple[Result, ...], str]:
    async with running(policy) as engine:
        digests = frozenset(item.input_sha256 for item in past)
        found = find_all(documents, digests) if digests else ()
        return await replay(engine, modules, past, found), engine.revision


def _past(journal: Path, since: str) -> Counter[Past]:
    ago = ago_seconds(since)
    if ago is None:
        raise Mistake(f"--since {since!r} is no time; write for example 90m, 12h or 7d")
    moment = timestamp(max(0, time.time_ns() - ago * 1_000_000_000))
    try:
        return Counter(_decision(found) for found in scan(journal, Search(rule=PolicyDecided.rule, since=moment)))
    except OSError as error:
        raise Mistake(_unreadable(error, journal)) from error


def _decision(found: Found | Damage) -> Past:
    if isinstance(found, Damage):
        raise Mistake(f"the journal is damaged: {found.segment}: record {found.seq}: {found.reason}")
    values = dict(found.record.fields)
    codes = values.get("reason_codes")
    return Past(
        action=str(values.get("action", "")),
        input_sha256=str(values.get("input_sha256", "")),
        verdict=str(values.get("verdict", "")),
        reason_codes=tuple(map(str, codes)) if isinstance(codes, tuple) else (),
    )


def _unreadable(error: OSError, directory: Path) -> str:
    match error:
        case FileNotFoundError():
            return f"there is no record in {str(directory)!r}; name the node's --state-dir"
        case PermissionError():
            return f"cannot read {str(directory)!r}: {error.strerror}; read it as root or as the daemon's user"
        case _:
            return f"cannot read {str(directory)!r}: {error.strerror}"


def _show(results: Sequence[Result], revision: str, since: str) -> None:
    counts = _counts(results)
    print(  # noqa: T201
        f"{sum(counts.values())} decisions of the last {since}, decided again by {printable(revision)}: "
        + ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome)
    )
    groups: defaultdict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        if result.outcome is not Outcome.SAME:
            change = f"{result.then} → {result.now}" if result.outcome is Outcome.CHANGED else result.outcome.value
            groups[change, result.past.action, ", ".join(result.reason_codes)].append(result)
    rows = [
        (*group, str(sum(result.count for result in found)), " ".join(_examples(found)))
        for group, found in sorted(groups.items())
    ]
    if rows:
        tables.show("", ("change", "action", "new reasons", "decisions", "examples: sandboxd audit show"), rows)


def _examples(found: Sequence[Result]) -> list[str]:
    return sorted({result.past.input_sha256 for result in found} - {""})[:MOST_EXAMPLES]


def _counts(results: Sequence[Result]) -> Counter[Outcome]:
    counts: Counter[Outcome] = Counter()
    for result in results:
        counts[result.outcome] += result.count
    return counts


def _told(results: Sequence[Result], revision: str) -> dict[str, object]:
    return {
        "revision": revision,
        "decisions": {outcome.value: count for outcome, count in sorted(_counts(results).items())},
        "changes": [
            {
                "outcome": result.outcome,
                "action": result.past.action,
                "input_sha256": result.past.input_sha256,
                "then": result.then,
                "now": result.now,
                "then_reason_codes": result.past.reason_codes,
                "now_reason_codes": result.reason_codes,
                "decisions": result.count,
            }
            for result in results
            if result.outcome is not Outcome.SAME
        ],
    }
