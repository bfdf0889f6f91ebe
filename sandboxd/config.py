"""The configuration file: every key optional, unknown and duplicate keys refused with their line.

Reads one YAML file and nothing else; must never take a value from a request. Called by `daemon`, and by the command
line for `serve` (which starts the spawner from it) and `config validate`. The schema is the manual.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sandboxd import listening
from sandboxd.errors import ConfigInvalid
from sandboxd.redaction.settings import RedactionSettings

MAX_FILE_BYTES = 1024 * 1024
FIRST_SANDBOX_ID: Final = 1879048192  # 0x70000000: above the ranges that adduser and systemd hand out
LAST_ID: Final = 2**32 - 2
IDS_PER_SANDBOX: Final = 16
_PACKAGE = Path(__file__).parent


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError("must be an absolute path")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Listener(_Section):
    """One place to listen at: `{unix: PATH}`."""

    unix: AbsolutePath | None = None
    tcp: str | None = None

    @model_validator(mode="after")
    def _only_unix_yet(self) -> "Listener":
        if self.tcp is not None:
            raise ValueError("a tcp listener needs TLS identities, which do not exist yet; use {unix: PATH}")
        if self.unix is None:
            raise ValueError("a listener needs its type; use {unix: PATH}")
        return self


class Profiles(_Section):
    """Directories and files with profiles. Empty: the shipped ones."""

    paths: tuple[AbsolutePath, ...] = ()


class Opa(_Section):
    """The OPA server that the engine `opa` asks. What each key means stands in docs/policy.md."""

    url: str
    decision: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*(/[A-Za-z_][A-Za-z0-9_-]*)*$")] = (
        "sandboxd/decision"
    )
    ca: AbsolutePath | None = None
    certificate: AbsolutePath | None = None
    key: AbsolutePath | None = None
    token_file: AbsolutePath | None = None
    revision: Annotated[str, Field(max_length=256)] = ""
    cacheable: bool = False
    max_response_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 1024 * 1024
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    breaker_seconds: Annotated[float, Field(gt=0, le=300)] = 5.0

    @field_validator("url")
    @classmethod
    def _known_url(cls, url: str) -> str:
        split = _split_url(url)
        if split.query or split.fragment or split.username is not None or split.password is not None:
            raise ValueError("is a server and no more; leave out user, query and fragment (a token goes to token_file)")
        if split.scheme == "unix":
            if split.netloc or not split.path.startswith("/") or "\0" in split.path:
                raise ValueError("must name an absolute path; use unix:///run/opa/opa.sock")
        elif split.scheme not in ("http", "https"):
            raise ValueError("has an unknown scheme; use http, https or unix")
        elif not split.hostname:
            raise ValueError(f"has no host; use {split.scheme}://HOST:PORT")
        return url

    @model_validator(mode="after")
    def _protected(self) -> "Opa":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are two halves of one identity; set both or neither")
        if self.scheme != "https" and (self.ca or self.certificate):
            raise ValueError(f"ca, certificate and key have no use over {self.scheme}; use https, or leave them out")
        if self.token_file is not None and not self.private:
            raise ValueError("a token over http can be read on its way; use https, unix, or a loopback address")
        return self

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def private(self) -> bool:
        """Whether nobody on the way can read or change what is asked and answered."""
        if self.scheme != "http":
            return True
        return _loopback(urlsplit(self.url).hostname or "")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split_url(url: str) -> SplitResult:
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError as error:
        raise ValueError(f"is not a URL ({error}); use http://HOST:PORT, https://HOST:PORT or unix:///PATH") from error
    if not url.isascii() or any(character <= " " for character in url):
        raise ValueError("has characters that a URL cannot have; encode them")
    return split


class Shadow(_Section):
    """A second policy that is asked what the first one was, and decides nothing; see docs/bundles.md."""

    paths: Annotated[tuple[AbsolutePath, ...], Field(min_length=1)]
    queue: Annotated[int, Field(ge=1, le=65536)] = 1024


class Policy(_Section):
    """Which engine decides, and what it reads or asks. Empty paths: the shipped bundle.

    With a `verification_key` (PEM) nothing is read but one bundle that it signed, and the shadow's.
    """

    engine: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "rego"
    paths: tuple[AbsolutePath, ...] = ()
    deadline_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    opa: Opa | None = None
    verification_key: AbsolutePath | None = None
    shadow: Shadow | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Policy":
        if self.engine == "opa" and self.opa is None:
            raise ValueError("engine 'opa' needs a server; set opa: {url: http://127.0.0.1:8181}")
        if self.engine == "opa" and self.paths:
            raise ValueError("paths are for the embedded engine, and 'opa' has its own policy; leave them out")
        if self.engine == "rego" and self.opa is not None:
            raise ValueError("an OPA server is configured and would not be asked; set engine: opa, or leave opa out")
        if self.engine != "rego" and self.verification_key is not None:
            raise ValueError("verification_key is for the embedded engine; an OPA server verifies what it loads itself")
        return self

    @property
    def bundle_paths(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.paths)) or (shipped("policies"),)

    @property
    def key_path(self) -> Path | None:
        return None if self.verification_key is None else Path(self.verification_key)


class Webhook(_Section):
    """Who is told of approvals that are asked for and decided. What it is sent stands in docs/approvals.md."""

    url: str
    token_file: AbsolutePath | None = None

    @field_validator("url")
    @classmethod
    def _private(cls, url: str) -> str:
        split = _split_url(url)
        if split.username is not None or split.password is not None or split.fragment:
            raise ValueError("holds a user or a fragment; leave them out (a token goes to token_file)")
        if not split.hostname or not (
            split.scheme == "https" or (split.scheme == "http" and _loopback(split.hostname))
        ):
            raise ValueError("can be read on its way; use https://HOST, or http with a loopback address")
        return url


class ApprovalSettings(_Section):
    """What policy leaves to people. `wait_seconds`: so long an Execute waits for them, 0 tells its caller at once.

    `max_pending` and `max_per_minute` are for each requester: what is beyond is denied.
    """

    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    max_pending: Annotated[int, Field(ge=1, le=1000)] = 20
    max_per_minute: Annotated[int, Field(ge=1, le=1000)] = 10
    webhook: Webhook | None = None


class IdRange(_Section):
    """Host ids of sandboxes when started as root: nobody else on this machine may have one of them."""

    start: Annotated[int, Field(ge=65536, le=LAST_ID)] = FIRST_SANDBOX_ID
    count: Annotated[int, Field(ge=IDS_PER_SANDBOX)] = 65536

    @model_validator(mode="after")
    def _within_ids(self) -> "IdRange":
        if self.start + self.count - 1 > LAST_ID:
            raise ValueError(f"start + count is over {LAST_ID}; choose a smaller count")
        return self


class ProcessRuntimeSettings(_Section):
    """The process runtime. `daemon_user` is who the daemon becomes when started as root."""

    ids: IdRange = IdRange()
    daemon_user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "sandboxd"
    blank_stock: Annotated[int, Field(ge=0, le=256)] = 4


class Runtimes(_Section):
    process: ProcessRuntimeSettings = ProcessRuntimeSettings()


class Audit(_Section):
    """`write`: an event is with the kernel before the action proceeds; `fsync`: it is on the disk."""

    durability: Literal["write", "fsync"] = "write"
    segment_bytes: Annotated[int, Field(ge=64 * 1024, le=1024**3)] = 64 * 1024 * 1024


class SinkSettings(_Section):
    """Where events go besides the journal. A required sink must accept at start, and holds back retention."""

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    required: bool = False


class NodeLimits(_Section):
    """What this node takes on. `max_per_minute` is for each tenant, 0 is no rate."""

    max_concurrent: Annotated[int, Field(ge=1, le=100_000)] = 256
    max_per_minute: Annotated[int, Field(ge=0)] = 0
    retained_executions: Annotated[int, Field(ge=0, le=100_000)] = 256
    retained_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Metrics(_Section):
    """Where Prometheus reads, as `listening.place` has it; None: nowhere. What it reads stands in docs/metrics.md."""

    listen: str | None = None

    @field_validator("listen")
    @classmethod
    def _a_place(cls, listen: str | None) -> str | None:
        if listen is not None:
            listening.place(listen)
        return listen

    @property
    def place(self) -> listening.Loopback | Path | None:
        return None if self.listen is None else listening.place(self.listen)


class Config(_Section):
    """Everything. `allowed_uids` may connect besides root and the daemon's own uid."""

    listen: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=1)]
    state_dir: AbsolutePath
    profiles: Profiles = Profiles()
    policy: Policy = Policy()
    approvals: ApprovalSettings = ApprovalSettings()
    redaction: RedactionSettings = RedactionSettings()
    runtimes: Runtimes = Runtimes()
    audit: Audit = Audit()
    sinks: tuple[SinkSettings, ...] = (SinkSettings(type="stdout"),)
    limits: NodeLimits = NodeLimits()
    allowed_uids: tuple[Annotated[int, Field(ge=0, le=LAST_ID)], ...] = ()
    drain_grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    log: Log = Log()
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _metrics_beside_the_api(self) -> "Config":
        """That directory is the daemon's alone, which is seen to before anything is served there."""
        place, socket = self.metrics.place, self.socket_path
        if isinstance(place, Path) and (place.parent != socket.parent or place.suffix != ".sock" or place == socket):
            raise ValueError(f"metrics.listen must be another socket beside {str(socket)!r} whose name ends in .sock")
        return self

    @field_validator("sinks")
    @classmethod
    def _each_sink_once(cls, sinks: tuple[SinkSettings, ...]) -> tuple[SinkSettings, ...]:
        # A sink's place in the journal goes by its name.
        types = [sink.type for sink in sinks]
        for kind in types:
            if types.count(kind) > 1:
                raise ValueError(f"{kind!r} is there twice; name each sink once")
        return sinks

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


def runtime_directory(*, as_root: bool) -> Path:
    """Where the socket lives by default: /run/sandboxd as root, else below XDG_RUNTIME_DIR."""
    if as_root:
        return Path("/run/sandboxd")
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(base) / "sandboxd" if base.startswith("/") else state_directory(as_root=False) / "run"


def state_directory(*, as_root: bool) -> Path:
    """Where the journal lives by default: /var/lib/sandboxd as root, else below XDG_STATE_HOME."""
    if as_root:
        return Path("/var/lib/sandboxd")
    base = os.environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "sandboxd"
    try:
        return Path.home() / ".local/state/sandboxd"
    except RuntimeError as error:
        raise ConfigInvalid("this user has no home directory; set state_dir, XDG_STATE_HOME or HOME") from error


def shipped(kind: Literal["profiles", "policies"]) -> Path:
    """The shipped data: inside the package when installed, beside it in a checkout."""
    installed = _PACKAGE / "_data" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def _validated(values: dict[str, object], name: str, document: CommentedMap, as_root: bool | None) -> Config:
    root = os.getuid() == 0 if as_root is None else as_root
    values.setdefault("listen", ({"unix": str(runtime_directory(as_root=root) / "sandboxd.sock")},))
    values.setdefault("state_dir", str(state_directory(as_root=root)))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{name}:{_line(document, problem['loc'])}: {'.'.join(map(str, problem['loc'])) or 'file'}:"
            f" {_sentence(problem['type'], problem['msg'])}, got {_shown(problem['input'])}"
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
    if kind == "extra_forbidden":
        return "unknown key; see the configuration reference for the known ones"
    return re.sub(r"^Value error, ", "", message[:1].lower() + message[1:] if message[:6] != "Value " else message)


def _shown(value: object) -> str:
    return repr(value)[:80]
