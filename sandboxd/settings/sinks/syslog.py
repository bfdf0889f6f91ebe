"""The sink `syslog`."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sandboxd.settings.section import AbsolutePath, split_url
from sandboxd.settings.sinks.base import SinkSettings

FACILITIES = (
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    *((f"local{number}", 16 + number) for number in range(8)),
)
Facility = Literal[
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]


class SyslogSettings(SinkSettings):
    """RFC 5424 messages to a local socket or over a network.

    `url`: unixgram:///PATH (datagrams), unix:///PATH (a stream), tcp://HOST:PORT or tls://HOST:PORT. `message`: Falco
    JSON, or its one sentence. A message over `max_bytes` is sent shortened, and says so. `enterprise` is the number in
    the name of our structured data: 32473 is reserved for examples, so nobody else's. `signed_end`: over TLS, what was
    sent counts as taken only if the receiver ends the connection in TLS's own way (close_notify).
    """

    type: Literal["syslog"]
    url: str = "unixgram:///dev/log"
    ca: AbsolutePath | None = None
    certificate: AbsolutePath | None = None
    key: AbsolutePath | None = None
    facility: Facility = "authpriv"
    app_name: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,48}$")] = "sandboxd"
    enterprise: Annotated[int, Field(ge=1, lt=1 << 32)] = 32473
    message: Literal["falco", "text"] = "falco"
    max_bytes: Annotated[int, Field(ge=2048, le=1 << 20)] = 8192
    signed_end: bool = True
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0

    @field_validator("url")
    @classmethod
    def _a_receiver(cls, url: str) -> str:
        split = split_url(url)
        if split.username is not None or split.password is not None or split.query or split.fragment:
            raise ValueError("holds more than an address; use tcp://HOST:PORT, tls://HOST:PORT or unixgram:///PATH")
        if split.scheme in ("unixgram", "unix"):
            if split.netloc or not split.path.startswith("/") or len(split.path.encode()) > 107:
                raise ValueError(f"names no socket; use {split.scheme}:///PATH with at most 107 bytes")
        elif split.scheme in ("tcp", "tls"):
            if not split.hostname or not split.port or split.path:
                raise ValueError(f"needs a host and a port, and no path; use {split.scheme}://HOST:PORT")
        else:
            raise ValueError("has an unknown scheme; use unixgram, unix, tcp or tls")
        return url

    @model_validator(mode="after")
    def _identity(self) -> "SyslogSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are two halves of one identity; set both or neither")
        if urlsplit(self.url).scheme != "tls" and (self.ca or self.certificate):
            raise ValueError("ca, certificate and key have no use but over tls; use tls://, or leave them out")
        return self
