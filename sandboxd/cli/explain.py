"""What `--explain` and `--json` of `sandboxctl run` print after the program: why it ended and what enforced what."""

import base64
import dataclasses
import json
import sys

from sandboxd.cli import tables
from sandboxd.client.errors import PolicyDenied, SandboxdError
from sandboxd.client.model import Result

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


def explain(result: Result) -> None:
    """Tables on stderr, so that stdout stays the program's."""
    usage = result.usage
    tables.show("why it ended", ("", ""), _ending(result), to=sys.stderr)
    tables.show(
        "what it used",
        ("", ""),
        [
            ("wall time", tables.seconds(usage.wall_seconds)),
            ("CPU time, user", tables.seconds(usage.cpu_user_seconds)),
            ("CPU time, system", tables.seconds(usage.cpu_system_seconds)),
            ("peak memory", tables.size(usage.peak_memory_bytes)),
            ("peak processes and threads", "-" if usage.peak_pids is None else str(usage.peak_pids)),
            ("read from disks", tables.size(usage.io_read_bytes)),
            ("written to disks", tables.size(usage.io_write_bytes)),
            ("stdout", tables.size(usage.stdout_bytes)),
            ("stderr", tables.size(usage.stderr_bytes)),
        ],
        to=sys.stderr,
    )
    tables.show(
        f"what enforced what ({result.enforcement.runtime})",
        ("guarantee", "state", "layers", "reason"),
        [(row.guarantee, row.state, ", ".join(row.layers), row.reason) for row in result.enforcement.rows],
        to=sys.stderr,
    )
    if result.enforcement.warnings:
        rows = [(warning,) for warning in result.enforcement.warnings]
        tables.show("what makes this sandbox weaker", ("",), rows, to=sys.stderr)


def _ending(result: Result) -> list[tuple[str, str]]:
    rows = [("execution", result.execution_id), ("end reason", result.end_reason)]
    if result.exit_code is not None:
        rows.append(("exit code", str(result.exit_code)))
    if result.signal is not None:
        rows.append(("signal", str(result.signal)))
    if result.limits_hit:
        rows.append(("limits hit", ", ".join(result.limits_hit)))
    rows.extend(("violation", f"{v.layer}: {v.code}: {v.detail}") for v in result.violations)
    rows.extend(("redacted", f"{one.pattern}: {one.matches}") for one in result.redactions)
    if result.message_for_agent:
        rows.append(("message for the agent", result.message_for_agent))
    return rows


def result_json(result: Result) -> str:
    """One line. `stdout` and `stderr` as text with replacement characters, and exactly as `*_base64`."""
    document = _plain(dataclasses.asdict(result))
    assert isinstance(document, dict)
    return json.dumps({**document, **_texts(result)}, ensure_ascii=True, allow_nan=False)


def error_json(error: SandboxdError) -> str:
    """One line, with the same key for whatever refused."""
    told: Json = {
        "kind": type(error).__name__,
        "reason": error.reason,
        "message": error.message,
        "message_for_agent": error.message_for_agent,
        "execution_id": error.execution_id,
        "approval_id": error.approval_id if isinstance(error, PolicyDenied) else "",
    }
    return json.dumps({"error": told})


def _texts(result: Result) -> dict[str, Json]:
    return {
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
        "stdout_base64": base64.b64encode(result.stdout).decode(),
        "stderr_base64": base64.b64encode(result.stderr).decode(),
    }


def _plain(value: object) -> Json:
    """What JSON can hold: bytes become base64, times ISO 8601."""
    match value:
        case dict():
            return {
                f"{key}_base64" if isinstance(item, bytes) else str(key): _plain(item) for key, item in value.items()
            }
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case str() | int() | float() | None:
            return value
        case _:
            return str(value)
