import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.bundle_manifest import Manifest, check_roots, parse


def test_manifest_says_revision_roots_and_release() -> None:
    text = (
        b'{"revision": "r7", "roots": ["sandboxd", "/lib/x/"], "rego_version": 1,'
        b' "file_rego_versions": {"/*": 1}, "metadata": {"sandboxd": {"version": 7}, "team": "security"}}'
    )
    assert parse(".manifest", text) == Manifest("r7", ("sandboxd", "lib/x"), 7)
    assert parse(".manifest", b"{}") == Manifest("", ("",), 0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[]", "not an object"),
        (b"{", "not JSON"),
        (b'{"revision": 7}', "revision 7 is not a string"),
        (b'{"revision": "' + b"x" * 257 + b'"}', "a revision of 257 characters"),
        (b'{"revison": "x"}', "unknown key 'revison'"),
        (b'{"roots": "a"}', "not a list of strings"),
        (b'{"roots": [1]}', "not a list of strings"),
        (b'{"rego_version": 0}', "Rego version 0 is not 1"),
        (b'{"rego_version": true}', "Rego version True is not 1"),
        (b'{"file_rego_versions": {"/a.rego": 0}}', "Rego version 0 is not 1"),
        (b'{"file_rego_versions": 1}', "not an object"),
        (b'{"wasm": [{"entrypoint": "a"}]}', "no WebAssembly"),
        (b'{"metadata": []}', "metadata .* is not an object"),
        (b'{"metadata": {"sandboxd": 1}}', "N from 1"),
        (b'{"metadata": {"sandboxd": {"version": 0}}}', "N from 1"),
        (b'{"metadata": {"sandboxd": {"version": true}}}', "N from 1"),
        (b'{"metadata": {"sandboxd": {"version": 9223372036854775808}}}', "N from 1 to 9223372036854775807"),
        (b'{"revision": ' + b"7" * 5000 + b"}", "a number has 5000 characters"),
        (b'{"metadata": {"sandboxd": {"version": 1, "x": 1}}}', "unknown key 'x'"),
    ],
)
def test_manifest_that_asks_for_something_else_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(PolicyInvalid, match=rf"^\.manifest: .*{why}"):
        parse(".manifest", content)


def test_what_is_defined_outside_of_the_roots_is_refused() -> None:
    roots = Manifest(roots=("sandboxd", "lib/x"))
    check_roots("b", roots, [("a.rego", ("sandboxd", "inner")), ("d.json", ("lib", "x"))])
    check_roots("b", Manifest(), [("a.rego", ("anything",))])
    for path in (("sandboxdx",), ("lib",), ("lib", "y"), ()):
        with pytest.raises(PolicyInvalid, match=r"b: d\.json defines data\."):
            check_roots("b", roots, [("d.json", path)])
