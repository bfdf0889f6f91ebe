"""The configuration file: every key optional, unknown and duplicate keys refused with their line.

Reads one YAML file and nothing else; must never take a value from a request. Called by `daemon`, and by the command
line for `serve` (which starts the spawner from it) and `config validate`. The schema is the manual: its sections are in
`settings`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sandboxd.errors import ConfigInvalid
from sandboxd.redaction.settings import RedactionSettings
from sandboxd.settings.approvals import ApprovalSettings
from sandboxd.settings.audit import Audit
from sandboxd.settings.node import Listener, Log, Metrics, NodeLimits, Profiles
from sandboxd.settings.paths import runtime_directory, shipped, state_directory
from sandboxd.settings.policy import Policy
from sandboxd.settings.response import ResponseSettings
from sandboxd.settings.runtimes import LAST_ID, Runtimes
from sandboxd.settings.section import AbsolutePath, Section
from sandboxd.settings.sinks.any import AnySink
from sandboxd.settings.sinks.stdout import StdoutSettings
from sandboxd.settings.telemetry import Telemetry

MAX_FILE_BYTES = 1024 * 1024
_SENTENCES = {  # for those of pydantic that speak of Python
    "extra_forbidden": "unknown key; see the configuration reference for the known ones",
    "tuple_type": "must be a list",
    "model_type": "must be keys and values",
    "model_attributes_type": "must be keys and values",
    "dict_type": "must be keys and values",
}


class Config(Section):
    """Everything. `allowed_uids` may connect besides root and the daemon's own uid."""

    listen: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=1)]
    state_dir: AbsolutePath
    profiles: Profiles = Profiles()
    policy: Policy = Policy()
    approvals: ApprovalSettings = ApprovalSettings()
    redaction: RedactionSettings = RedactionSettings()
    runtimes: Runtimes = Runtimes()
    audit: Audit = Audit()
    sinks: Annotated[tuple[AnySink, ...], Field(max_length=16)] = (StdoutSettings(type="stdout"),)
    limits: NodeLimits = NodeLimits()
    allowed_uids: tuple[Annotated[int, Field(ge=0, le=LAST_ID)], ...] = ()
    drain_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    log: Log = Log()
    metrics: Metrics = Metrics()
    response: ResponseSettings = ResponseSettings()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _sockets_beside_the_api(self) -> "Config":
        """That directory is the daemon's alone, which is seen to before anything is served there."""
        socket = self.socket_path
        taken = {socket}
        response = None if self.response.listen is None else self.response.place
        for name, place in (("metrics", self.metrics.place), ("response", response)):
            if not isinstance(place, Path):
                continue
            if place.parent != socket.parent or place.suffix != ".sock" or place in taken:
                raise ValueError(
                    f"{name}.listen must be another socket beside {str(socket)!r} whose name ends in .sock"
                )
            taken.add(place)
        return self

    @field_validator("sinks")
    @classmethod
    def _each_sink_once(cls, sinks: tuple[AnySink, ...], info: ValidationInfo) -> tuple[AnySink, ...]:
        # A sink's place in the journal goes by its name.
        names = [sink.name for sink in sinks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is there twice; give each sink a name of its own")
        listen = info.data.get("listen", ())  # nothing, if that is wrong already
        return tuple(sink.placed(Path(listen[0].unix or "").parent) for sink in sinks) if listen else sinks

    @model_validator(mode="after")
    def _exports_apart(self) -> "Config":
        """What is in the state directory is the daemon's own, file by file."""
        for sink in self.sinks:
            for directory in map(Path, sink.directories):
                if directory.is_relative_to(self.state_dir) or directory == self.socket_path.parent:
                    raise ValueError(f"sink {sink.name!r} writes into {str(directory)!r}, which is sandboxd's own")
        return self

    @property
    def socket_path(self) -> Path:
        return Path(self.listen[0].unix or "")

    @property
    def profile_paths(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.profiles.paths)) or (shipped("profiles"),)


def load(path: Path | None, *, as_root: bool | None = None) -> Config:
    """The configuration in that file, or all defaults; `ConfigInvalid` naming file and line.

    `as_root` chooses the default paths: what was started as root keeps root's, also in the process that dropped to a
    uid of its own. None goes by the uid.
    """
    if path is None:
        return _validated({}, "defaults", CommentedMap(), as_root)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(f"cannot read {str(path)!r}: {error.strerror}; name a readable file") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigInvalid(f"{str(path)!r} is over {MAX_FILE_BYTES} bytes; a configuration is a few lines")
    return parse(text, str(path), as_root=as_root)


def parse(text: bytes, name: str, *, as_root: bool | None = None) -> Config:
    """As `load`, from bytes; `name` is for messages."""
    # The pure Python loader in round-trip mode makes plain values only and knows their lines.
    loader = YAML(typ="rt", pure=True)
    loader.allow_duplicate_keys = False
    try:
        document = loader.load(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{name!r} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        problem = (error.problem or "not YAML").splitlines()[0]
        raise ConfigInvalid(f"{name}:{line}: {problem}") from error
    except (YAMLError, ValueError, RecursionError, AssertionError, AttributeError, TypeError, LookupError) as error:
        # ruamel leaks such errors for odd keys, tags and directives; each means that this is no configuration
        raise ConfigInvalid(f"{name}: not YAML: {str(error)[:200]!r}; write plain keys and values") from error
    if document is None:
        document = CommentedMap()
    if not isinstance(document, CommentedMap):
        raise ConfigInvalid(f"{name}:1: expected keys and values, got {type(document).__name__}")
    return _validated({key: _plain(value, name) for key, value in document.items()}, name, document, as_root)


def _validated(values: dict[str, object], name: str, document: CommentedMap, as_root: bool | None) -> Config:
    root = os.getuid() == 0 if as_root is None else as_root
    values.setdefault("listen", ({"unix": str(runtime_directory(as_root=root) / "sandboxd.sock")},))
    values.setdefault("state_dir", str(state_directory(as_root=root)))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{name}:{_line(document, problem['loc'])}: {'.'.join(map(str, problem['loc'])) or 'file'}:"
            f" {_sentence(problem['type'], problem['msg'])}, got {_shown(problem['input'], problem['loc'])}"
            for problem in error.errors(include_url=False)
            # A list whose items are wrong is also said to be too short; the items' own messages are enough.
            if problem["type"] != "too_short" or not problem["input"]
        ]
        raise ConfigInvalid("\n".join(problems)) from error


def _plain(node: object, name: str, depth: int = 0) -> object:
    """Plain containers. Lists become tuples, which strict validation asks for."""
    if depth > 16:
        raise ConfigInvalid(f"{name}: nested deeper than 16 levels; a configuration is not")
    if isinstance(node, CommentedMap):
        return {key: _plain(value, name, depth + 1) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return tuple(_plain(value, name, depth + 1) for value in node)
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)  # ruamel's own subclasses remember how a value was written
    raise ConfigInvalid(f"{name}: {type(node).__name__} is not a value that a configuration may hold: {str(node)!r}")


def _line(document: CommentedMap, location: tuple[int | str, ...]) -> int:
    """The line of the deepest part of `location` that the file has."""
    node: object = document
    line = 1
    for part in location:
        if not isinstance(node, CommentedMap | CommentedSeq):
            break
        positions = node.lc.data or {}  # without what a merge key brought in
        if part not in positions:
            break
        line = positions[part][0] + 1
        node = node[part]
    return line


def _sentence(kind: str, message: str) -> str:
    if kind in _SENTENCES:
        return _SENTENCES[kind]
    return re.sub(r"^Value error, ", "", message[:1].lower() + message[1:] if message[:6] != "Value " else message)


def _shown(value: object, loc: Sequence[object]) -> str:
    """Without what headers hold, which may be a credential: this goes to the log."""
    return "what is not shown" if "headers" in loc else repr(_without_headers(value))[:80]


def _without_headers(value: object) -> object:
    if isinstance(value, dict):
        return {key: "…" if key == "headers" else _without_headers(below) for key, below in value.items()}
    return tuple(_without_headers(below) for below in value) if isinstance(value, tuple) else value
