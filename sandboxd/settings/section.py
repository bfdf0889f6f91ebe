"""What all sections of the configuration are made of: strict models that refuse unknown keys, and checks they share.

Pure: opens nothing. Used by the other files here.
"""

import ipaddress
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError("must be an absolute path")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_url(url: str) -> SplitResult:
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError as error:
        raise ValueError(f"is not a URL ({error}); use http://HOST:PORT, https://HOST:PORT or unix:///PATH") from error
    if not url.isascii() or any(character <= " " for character in url):
        raise ValueError("has characters that a URL cannot have; encode them")
    return split
