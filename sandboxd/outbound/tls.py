"""TLS towards a server of the configuration: whom to believe, and who we are. Used by whoever connects to one."""

import ssl
from pathlib import Path
from typing import Protocol

from sandboxd.errors import ConfigInvalid


class Identity(Protocol):
    """The keys of a section that are about TLS, each a path of PEM."""

    @property
    def ca(self) -> str | None: ...

    @property
    def certificate(self) -> str | None: ...

    @property
    def key(self) -> str | None: ...


def client_context(section: str, settings: Identity) -> ssl.SSLContext:
    """The system's authorities, or the configured one alone. ConfigInvalid names the key below `section`."""
    for name, path in (("ca", settings.ca), ("certificate", settings.certificate), ("key", settings.key)):
        if path is not None and not Path(path).is_file():
            raise ConfigInvalid(f"{section}.{name} {path!r} is no file that can be read; put it there as PEM")
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigInvalid(f"{section}.ca {settings.ca!r} holds no certificate that can be read: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate is not None:
        try:
            # There is nobody to ask for a passphrase: without this answer it would be asked for on the terminal.
            context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            raise ConfigInvalid(
                f"{section}.certificate {settings.certificate!r} and key {settings.key!r} cannot be used together: "
                f"{error}; give a certificate in PEM and its own key, without a passphrase"
            ) from error
    return context
