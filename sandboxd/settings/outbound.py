"""A server that the daemon sends to over http or https: whom, as whom, and whose certificate it believes.

Nothing secret over a line that can be read on its way. Used by the sections that have such a server.
"""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from sandboxd.settings.section import AbsolutePath, Section, is_loopback, split_url

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)  # token of RFC 9110
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,4094}[\x21-\x7e])?", re.ASCII)
_OURS = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _header_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError("is no name of a header; use letters, digits and -")
    if name.lower() in _OURS:
        raise ValueError("is a header that sandboxd sets itself; leave it out (a token goes to token_file)")
    return name


def _header_value(value: str) -> str:
    if _VALUE.fullmatch(value) is None:
        raise ValueError("cannot be a header's value; use printable ASCII, 4096 characters at most")
    return value


Headers = Annotated[
    dict[Annotated[str, AfterValidator(_header_name)], Annotated[str, AfterValidator(_header_value)]],
    Field(max_length=32),
]


class Outbound(Section):
    """`ca`: the authority to believe instead of the system's. `certificate` and `key`: who we are (mTLS).

    `token_file` holds a bearer token, and is read again when it changes. `headers` are sent as they are.
    """

    url: str
    ca: AbsolutePath | None = None
    certificate: AbsolutePath | None = None
    key: AbsolutePath | None = None
    token_file: AbsolutePath | None = None
    headers: Headers = Field(default_factory=dict)
    compression: bool = False
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0

    @field_validator("url")
    @classmethod
    def _a_server(cls, url: str) -> str:
        split = split_url(url)
        if split.username is not None or split.password is not None or split.fragment:
            raise ValueError("holds a user or a fragment; leave them out (a token goes to token_file)")
        if split.scheme not in ("http", "https"):
            raise ValueError("has an unknown scheme; use http://HOST:PORT or https://HOST:PORT")
        if not split.hostname:
            raise ValueError(f"has no host; use {split.scheme}://HOST:PORT")
        return url

    @model_validator(mode="after")
    def _protected(self) -> "Outbound":
        split = urlsplit(self.url)
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are two halves of one identity; set both or neither")
        if split.scheme == "http" and (self.ca or self.certificate):
            raise ValueError("ca, certificate and key have no use over http; use https, or leave them out")
        if split.scheme == "http" and (self.token_file or self.headers) and not is_loopback(split.hostname or ""):
            raise ValueError("a token or header over http can be read on its way; use https, or a loopback address")
        return self
