"""Which policy decides; docs/policy.md and docs/bundles.md say what each key means. Used by `config`."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sandboxd.settings.paths import shipped
from sandboxd.settings.section import AbsolutePath, Section, is_loopback, split_url


class Opa(Section):
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
        split = split_url(url)
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
        return is_loopback(urlsplit(self.url).hostname or "")


class Shadow(Section):
    """A second policy that is asked what the first one was, and decides nothing; see docs/bundles.md."""

    paths: Annotated[tuple[AbsolutePath, ...], Field(min_length=1)]
    queue: Annotated[int, Field(ge=1, le=65536)] = 1024


class Policy(Section):
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
