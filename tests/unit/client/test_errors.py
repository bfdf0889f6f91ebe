import pytest

from sandboxd import client
from sandboxd.client import SandboxdError, errors


def leaves(kind: type[SandboxdError]) -> list[type[SandboxdError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]


@pytest.mark.parametrize("kind", leaves(SandboxdError))
def test_every_error_is_public_drawn_in_the_tree_and_has_a_reason(kind: type[SandboxdError]) -> None:
    assert getattr(client, kind.__name__) is kind
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind("m").reason == kind.default_reason


def test_reason_of_the_daemon_replaces_the_default() -> None:
    error = client.PolicyDenied("m", reason="no_shell", message_for_agent="a")
    assert (str(error), error.reason, error.message_for_agent) == ("m", "no_shell", "a")


def test_denials_can_be_caught_together() -> None:
    assert issubclass(client.PolicyDenied, client.Denied)
    assert issubclass(client.CallerRefused, client.Denied)
