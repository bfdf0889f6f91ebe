"""Who may have this node respond to an event from outside, where, and with what. Used by `config`.

What a response is follows from this section alone: nothing in an event can choose it.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from sandboxd import listening
from sandboxd.settings.section import AbsolutePath, Section

OWN_RULES = "response."


def _mappable(rule: str) -> str:
    if rule.startswith(OWN_RULES):
        raise ValueError("is itself what a response leaves on record: it would answer its own answers; leave it out")
    return rule


Rule = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_mappable)]


class ResponseSettings(Section):
    """`listen`: an address with a port, or unix:///PATH; None: nowhere. `rules`: the measure for events of each rule.

    Whoever asks shows the token of `token_file`, a certificate of `client_ca`, or both where both are set. Where others
    than this machine come in, it is certificates. `certificate` and `key` are the server's own.
    """

    listen: str | None = None
    token_file: AbsolutePath | None = None
    certificate: AbsolutePath | None = None
    key: AbsolutePath | None = None
    client_ca: AbsolutePath | None = None
    rules: dict[Rule, Literal["freeze", "kill", "quarantine"]] = Field(default_factory=dict, max_length=1000)
    max_per_minute: Annotated[int, Field(ge=1, le=6000)] = 120

    @field_validator("listen")
    @classmethod
    def _a_place(cls, listen: str | None) -> str | None:
        if listen is not None and listen.startswith("unix://"):
            listening.place(listen)
        elif listen is not None:
            listening.address(listen)
        return listen

    @model_validator(mode="after")
    def _guarded(self) -> "ResponseSettings":
        if self.listen is None:
            if self.model_fields_set - {"listen"}:
                raise ValueError("has no listen, so nobody can ask for a response; set it, or leave the section out")
            return self
        if not self.rules:
            raise ValueError("maps no rule, so nothing would come of any event; set rules: {RULE: freeze}")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are two halves of one identity; set both or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca has no use without TLS; set certificate and key, too")
        place = self.place
        if isinstance(place, Path):
            if self.certificate is not None:
                raise ValueError("certificates have no use on a unix socket; leave them out")
        elif not ipaddress.ip_address(place[0]).is_loopback and self.client_ca is None:
            raise ValueError("can be reached from elsewhere; set certificate, key and client_ca, or listen on loopback")
        if self.token_file is None and self.client_ca is None:
            raise ValueError("lets everybody ask who can connect; set token_file, or certificate, key and client_ca")
        return self

    @property
    def place(self) -> Path | tuple[str, int]:
        """Only where `listen` is set."""
        if (listen := self.listen or "").startswith("unix://"):
            return Path(listen.removeprefix("unix://"))
        return listening.address(listen)
