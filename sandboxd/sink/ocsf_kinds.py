"""Which class of OCSF an event of ours is, what it says was done, and how bad it is: tables, and how they are read.

Pure. A kind of event that has no row goes by its noun, so that a new one is at least of the right class; one of a noun
without a row is a Base Event. Called by `sink.ocsf_event`, and by `audit.document`, which publishes it.
Source: https://schema.ocsf.io/1.9.0/
"""

from dataclasses import dataclass

VERSION = "1.9.0"
UNKNOWN, OTHER = 0, 99


@dataclass(frozen=True, slots=True)
class EventClass:
    uid: int
    name: str
    category: str
    activities: tuple[tuple[int, str], ...]

    @property
    def category_uid(self) -> int:
        return self.uid // 1000


FILE = EventClass(
    1001, "File System Activity", "System Activity", ((1, "Create"), (2, "Read"), (4, "Delete"), (8, "Get Attributes"))
)
PROCESS = EventClass(1007, "Process Activity", "System Activity", ((1, "Launch"), (2, "Terminate")))
FINDING = EventClass(2004, "Detection Finding", "Findings", ((1, "Create"),))
NETWORK = EventClass(4001, "Network Activity", "Network Activity", ((1, "Open"),))
LIFECYCLE = EventClass(
    6002, "Application Lifecycle", "Application Activity", ((3, "Start"), (4, "Stop"), (8, "Update"))
)
API = EventClass(
    6003, "API Activity", "Application Activity", ((1, "Create"), (2, "Read"), (3, "Update"), (4, "Delete"))
)
BASE = EventClass(0, "Base Event", "Uncategorized", ())


@dataclass(frozen=True, slots=True)
class Kind:
    of: EventClass
    activity: int = OTHER

    @property
    def activity_name(self) -> str:
        return dict(self.of.activities).get(self.activity, "Other")


RULES = {
    "execution.requested": Kind(API, 1),
    "execution.refused": Kind(API, 1),
    "execution.started": Kind(PROCESS, 1),
    "execution.ended": Kind(PROCESS, 2),
    "process.exec_decided": Kind(PROCESS, 1),
    "sandbox.violated": Kind(FINDING, 1),
    "syscall.denied": Kind(FINDING, 1),
    "approval.requested": Kind(API, 1),
    "daemon.started": Kind(LIFECYCLE, 3),
    "daemon.stopped": Kind(LIFECYCLE, 4),
    "config.reloaded": Kind(LIFECYCLE, 8),
    "policy.reloaded": Kind(LIFECYCLE, 8),
    "policy.reload_failed": Kind(LIFECYCLE, 8),
}
# Of an event about what was asked for, its `action` says what it was.
ABOUT_ACTIONS = ("policy.decided", "policy.shadow_differed")
ACTIONS = {
    "execution.start": Kind(PROCESS, 1),
    "process.exec": Kind(PROCESS, 1),
    "file.put": Kind(FILE, 1),
    "file.get": Kind(FILE, 2),
    "file.list": Kind(FILE, 8),
    "file.delete": Kind(FILE, 4),
    "net.connect": Kind(NETWORK, 1),
    "sandbox.create": Kind(API, 1),
    "sandbox.delete": Kind(API, 4),
    "sandbox.pause": Kind(API, 3),
    "sandbox.resume": Kind(API, 3),
    "sandbox.snapshot": Kind(API, 1),
    "sandbox.restore": Kind(API, 3),
    "secret.use": Kind(API, 2),
    "profile.use": Kind(API, 2),
    "approval.decide": Kind(API, 3),
}
NOUNS = {
    "approval": Kind(API, 3),
    "config": Kind(LIFECYCLE),
    "daemon": Kind(LIFECYCLE),
    "execution": Kind(PROCESS),
    "file": Kind(FILE),
    "journal": Kind(LIFECYCLE),
    "net": Kind(NETWORK),
    "policy": Kind(LIFECYCLE),
    "process": Kind(PROCESS),
    "response": Kind(API, 3),
    "sandbox": Kind(API),
    "secret": Kind(API),
    "sink": Kind(LIFECYCLE),
    "syscall": Kind(FINDING, 1),
}


def kind_of(rule: str, action: str) -> Kind:
    """`action` is the event's field of that name, empty if it has none."""
    if rule in ABOUT_ACTIONS:
        return ACTIONS.get(action, Kind(API))
    return RULES.get(rule) or NOUNS.get(rule.partition(".")[0]) or Kind(BASE)


SEVERITIES = {
    "Debug": (1, "Informational"),
    "Informational": (1, "Informational"),
    "Notice": (2, "Low"),
    "Warning": (3, "Medium"),
    "Error": (4, "High"),
    "Critical": (5, "Critical"),
    "Alert": (5, "Critical"),
    "Emergency": (6, "Fatal"),
}


@dataclass(frozen=True, slots=True)
class Control:
    """What a control did (`action`), and what came of it (`disposition`), as the profile security_control has them."""

    action: int
    disposition: int


ACTION_NAMES = {0: "Unknown", 1: "Allowed", 2: "Denied", 3: "Observed", 4: "Modified"}
DISPOSITION_NAMES = {
    0: "Unknown",
    1: "Allowed",
    2: "Blocked",
    3: "Quarantined",
    4: "Isolated",
    8: "Approved",
    9: "Restored",
    14: "Delayed",
    16: "No Action",
    17: "Logged",
    19: "Alert",
    25: "Rejected",
}
LOGGED = Control(3, 17)
VERDICTS = {
    "allow": Control(1, 1),
    "warn": Control(1, 19),
    "transform": Control(4, 1),
    "deny": Control(2, 2),
    "escalate": Control(2, 14),
}
MEASURES = {
    "freeze": Control(2, 4),
    "quarantine": Control(2, 3),
    "kill": Control(2, 2),
    "thaw": Control(1, 9),
    "lift": Control(1, 9),
    "examine": LOGGED,
}
CONTROLS = {
    "execution.refused": Control(2, 25),
    "execution.started": Control(1, 1),
    "sandbox.violated": Control(2, 2),
    "syscall.denied": Control(2, 2),
    "approval.requested": Control(3, 14),
    "approval.granted": Control(1, 8),
    "approval.consumed": Control(1, 8),
    "approval.denied": Control(2, 25),
    "approval.refused": Control(2, 25),
    "approval.expired": Control(2, 25),
    "response.refused": Control(0, 16),
}


def control_of(rule: str, verdict: str, measure: str) -> Control:
    """`verdict` and `measure` are the event's fields of that name, empty if it has none. A shadow decides nothing."""
    if known := CONTROLS.get(rule):
        return known
    if verdict and rule != "policy.shadow_differed":
        return VERDICTS.get(verdict, Control(UNKNOWN, UNKNOWN))
    if measure:
        return MEASURES.get(measure, Control(UNKNOWN, UNKNOWN))
    return LOGGED
