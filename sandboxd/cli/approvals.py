"""What `sandboxctl approval` prints: a table or one line for people, JSON for programs.

What is shown of an action comes from whoever asked for it: it never reaches a terminal raw.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sandboxd.cli import tables
from sandboxd.cli.printable import printable
from sandboxd.client.approval import Approval


def show_approvals(approvals: Sequence[Approval], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_document(approval) for approval in approvals], indent=2))  # noqa: T201
        return
    tables.show(
        "",
        ("id", "state", "action", "who", "profile", "votes", "ends", "why"),
        [
            (
                a.approval_id, a.state, a.action_type, a.requester, a.profile, _votes(a), _time(a.expires_at),
                "; ".join(a.reasons),
            )
            for a in approvals
        ],
    )  # fmt: skip


def show_approval(approval: Approval, *, as_json: bool) -> None:
    """All about one, so that it can be decided on."""
    if as_json:
        print(json.dumps(_document(approval), indent=2))  # noqa: T201
        return
    tables.show(
        approval.approval_id,
        ("", ""),
        [
            ("state", approval.state),
            ("action", approval.action_type),
            ("asked by", f"{approval.requester} through {approval.method}"),
            ("profile", f"{approval.profile} ({approval.profile_digest[:12]})"),
            ("why", "; ".join(approval.reasons) or "-"),
            ("approvers", ", ".join(approval.approvers) or "any operator but who asked"),
            ("votes", _votes(approval)),
            *((f"  {'for' if v.approve else 'against'}", f"{v.approver} {v.comment}".rstrip()) for v in approval.votes),
            ("asked at", _time(approval.requested_at)),
            ("ends at", _time(approval.expires_at)),
            ("policy revision", approval.policy_revision),
        ],
    )
    for line in _pretty(approval.shown).splitlines():
        print(printable(line))  # noqa: T201
    if approval.shown_bytes > len(approval.shown.encode()):
        print(  # noqa: T201
            f"NOT ALL OF IT: this is cut, the whole has {approval.shown_bytes} bytes; "
            f"on the node: sandboxd audit show {approval.shown_sha256}"
        )


def follow(updates: Iterable[Approval], *, as_json: bool) -> None:
    """A line for each, at once."""
    for a in updates:
        line = f"{a.approval_id} {a.state} {a.action_type} {a.requester} {a.profile} {_votes(a)} {'; '.join(a.reasons)}"
        print(json.dumps(_document(a)) if as_json else printable(line.rstrip()), flush=True)  # noqa: T201


def _votes(approval: Approval) -> str:
    return f"{sum(vote.approve for vote in approval.votes)}/{approval.quorum}"


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment is not None else "-"


def _pretty(shown: str) -> str:
    try:
        return json.dumps(json.loads(shown), indent=2)
    except (ValueError, RecursionError):
        return shown  # it is cut


def _document(approval: Approval) -> dict[str, object]:
    return dataclasses.asdict(approval, dict_factory=_plain)


def _plain(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in pairs}
