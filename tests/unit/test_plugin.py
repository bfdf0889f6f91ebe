import pytest

from sandboxd import plugin
from sandboxd.errors import ConfigInvalid
from sandboxd.policy import deny_all


def test_implementation_is_the_module_of_that_name() -> None:
    assert plugin.implementation("policy", "deny_all") is deny_all


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("no_such", id="no module"),
        pytest.param("base", id="the seam itself"),
        pytest.param("_private", id="private"),
        pytest.param("rego_bundle", id="a part of one, without a factory"),
        pytest.param("rego.create", id="dotted"),
        pytest.param("../rego", id="a path"),
        pytest.param("", id="empty"),
    ],
)
def test_name_that_is_no_implementation_is_refused(name: str) -> None:
    with pytest.raises(ConfigInvalid, match="is not a policy implementation"):
        plugin.implementation("policy", name)
