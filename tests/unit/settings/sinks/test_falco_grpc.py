import pytest

from sandboxd import config
from sandboxd.settings.sinks.falco_grpc import FalcoGrpcSettings
from tests.unit.settings.complaints import complaint


def sink(text: str) -> FalcoGrpcSettings:
    found = config.parse(f"listen: [{{unix: /run/x/s.sock}}]\nsinks:\n  - {{{text}}}\n".encode(), "c.yaml").sinks[0]
    assert isinstance(found, FalcoGrpcSettings)
    return found


@pytest.mark.parametrize(
    ("text", "socket"),
    [
        ("type: falco_grpc", "/run/x/falco_grpc.sock"),
        ("type: falco_grpc, name: exporter", "/run/x/exporter.sock"),
        ("type: falco_grpc, socket: /run/falco/falco.sock", "/run/falco/falco.sock"),
    ],
)
def test_the_socket_is_beside_the_apis_unless_named(text: str, socket: str) -> None:
    assert sink(text).socket == socket


def test_only_the_daemons_own_user_connects_unless_the_group_may() -> None:
    assert sink("type: falco_grpc").socket_mode == "0600"
    assert sink("type: falco_grpc, socket_mode: '0660'").socket_mode == "0660"


_TLS = "certificate: /c, key: /k, client_ca: /a"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("required: true", "required: cannot be had of falco_grpc: clients fetch from it and confirm nothing"),
        ("socket: falco.sock", "socket: must be an absolute path"),
        ("socket: /a/../b", "socket: must name an absolute path, without detours"),
        (f"socket: /{'x' * 200}", "socket: is too long for a socket"),
        ("socket_mode: '0666'", "socket_mode: input should be '0600' or '0660'"),
        ("tls: {address: '0.0.0.0:5060', certificate: /c, key: /k}", "tls.client_ca: field required"),
        (f"tls: {{address: 'node.example:5060', {_TLS}}}", "tls.address: is no address with a port"),
        (f"tls: {{address: '0.0.0.0:0', {_TLS}}}", "tls.address: has no port from 1 to 65535"),
        ("queue_events: 0", "queue_events: input should be greater than or equal to 1"),
        ("queue_bytes: 100", "queue_bytes: input should be greater than or equal to 65536"),
        ("address: '0.0.0.0:5060'", "address: unknown key"),
    ],
)
def test_complaint_names_what_would_mend_it(text: str, says: str) -> None:
    assert f"sinks.0.falco_grpc.{says}" in complaint(f"sinks:\n  - {{type: falco_grpc, {text}}}\n")


def test_a_place_for_other_machines_is_any_address() -> None:
    tls = sink(f"type: falco_grpc, tls: {{address: '[::]:5060', {_TLS}}}").tls
    assert tls is not None and tls.address == "[::]:5060"


def test_the_directory_of_the_socket_is_shown_to_no_sandbox() -> None:
    assert sink("type: falco_grpc, socket: /run/falco/falco.sock").hidden == ("/run/falco",)
