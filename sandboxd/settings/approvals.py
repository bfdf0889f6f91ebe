"""What policy leaves to people; docs/approvals.md says what each key means. Used by `config`."""

from typing import Annotated

from pydantic import Field, field_validator

from sandboxd.settings.section import AbsolutePath, Section, is_loopback, split_url


class Webhook(Section):
    """Who is told of approvals that are asked for and decided. What it is sent stands in docs/approvals.md."""

    url: str
    token_file: AbsolutePath | None = None

    @field_validator("url")
    @classmethod
    def _private(cls, url: str) -> str:
        split = split_url(url)
        if split.username is not None or split.password is not None or split.fragment:
            raise ValueError("holds a user or a fragment; leave them out (a token goes to token_file)")
        if not split.hostname or not (
            split.scheme == "https" or (split.scheme == "http" and is_loopback(split.hostname))
        ):
            raise ValueError("can be read on its way; use https://HOST, or http with a loopback address")
        return url


class ApprovalSettings(Section):
    """What policy leaves to people. `wait_seconds`: so long an Execute waits for them, 0 tells its caller at once.

    `max_pending` and `max_per_minute` are for each requester: what is beyond is denied.
    """

    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0
    max_pending: Annotated[int, Field(ge=1, le=1000)] = 20
    max_per_minute: Annotated[int, Field(ge=1, le=1000)] = 10
    webhook: Webhook | None = None
