"""A recorder that keeps events in a list, and refuses the events that a test names, as an unwritable journal does."""

import hashlib
from dataclasses import dataclass, field

from sandboxd.audit.digest import PLAIN, Digest
from sandboxd.errors import AuditUnavailable
from sandboxd.event import Event


@dataclass
class FakeRecorder:
    """`refuses` names the rules whose events cannot be written; `*` is all of them."""

    refuses: frozenset[str] = frozenset()
    events: list[Event] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)
    digest: Digest = PLAIN

    async def record(self, event: Event) -> int:
        if event.rule in self.refuses or "*" in self.refuses:
            raise AuditUnavailable("the disk is full")
        self.events.append(event)
        return len(self.events)

    def store(self, document: bytes) -> str:
        digest = hashlib.sha256(document).hexdigest()
        self.documents[digest] = document
        return digest

    @property
    def rules(self) -> list[str]:
        return [event.rule for event in self.events]
