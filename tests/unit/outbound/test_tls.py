"""What handshakes come of it is tried in tests/unit/policy/test_opa_client.py."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from sandboxd.errors import ConfigInvalid
from sandboxd.outbound.tls import client_context


@dataclass(frozen=True)
class Settings:
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


def test_the_peer_is_always_checked() -> None:
    context = client_context("x", Settings())
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_only_the_configured_authority_is_believed(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert len(client_context("x", Settings(ca=str(tmp_path / "ca.pem"))).get_ca_certs()) == 1


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    nothing = str(tmp_path / "nothing")
    empty = str(tmp_path / "empty")
    for settings, says in (
        (Settings(ca=nothing), "sinks.a.ca "),
        (Settings(ca=str(tmp_path)), "sinks.a.ca "),
        (Settings(ca=empty), "holds no certificate"),
        (Settings(certificate=nothing, key=empty), "sinks.a.certificate "),
        (Settings(certificate=empty, key=empty), "cannot be used together"),
    ):
        with pytest.raises(ConfigInvalid, match=says):
            client_context("sinks.a", settings)
