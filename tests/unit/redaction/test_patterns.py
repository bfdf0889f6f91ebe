import base64

import pytest

from sandboxd.redaction.patterns import MAX_BLOCK_BYTES, SHIPPED, Catalogue, PatternInvalid, Source, compiled
from tests.unit.redaction.samples import SAMPLES

# First parameters of JOSE headers: RFC 7515, 7516, 7518, 7519, 7797, 8225 and 8555.
JOSE = (
    *("alg", "jku", "jwk", "kid", "x5u", "x5c", "x5t", "typ", "cty", "crit", "enc", "zip", "epk", "apu", "apv", "iv"),
    *("tag", "p2s", "p2c", "b64", "nonce", "url", "ppt", "iss"),
)


def found(name: str, text: bytes) -> bytes | None:
    """What the first match begins with, without what it goes on with."""
    match = Catalogue().patterns([name]).each[0].start.found.search(text, 0, len(text))
    return None if match is None else text[slice(*match.span())]


def test_each_shipped_pattern_has_a_sample() -> None:
    assert SAMPLES.keys() == SHIPPED.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_pattern_finds_its_sample_and_none_of_another_kind(name: str) -> None:
    finding = {sample for sample, text in SAMPLES.items() if found(name, text)}
    also = {"jwt"} & finding if name == "bearer-token" else set()
    assert finding - also == {name}


@pytest.mark.parametrize("name", SHIPPED)
def test_no_shipped_pattern_finds_anything_in_prose(name: str) -> None:
    text = b"The bearer of this token asks for a key: eyes, ghosts, AKIA, xox, npm_ and pypi-AgE are too short."
    assert found(name, text) is None


@pytest.mark.parametrize("separator", [b'{"', b'{ "'])
@pytest.mark.parametrize("parameter", JOSE)
def test_jwt_is_found_whatever_its_header_begins_with(parameter: str, separator: bytes) -> None:
    header = base64.urlsafe_b64encode(separator + parameter.encode() + b'":"some value","alg":"none"}').rstrip(b"=")
    assert found("jwt", header + b".e30.") is not None


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "DSA ", "ENCRYPTED ", "OPENSSH ", "ANY "])
def test_private_keys_of_all_kinds_are_found(kind: str) -> None:
    assert found("private-key", f"-----BEGIN {kind}PRIVATE KEY-----\n".encode()) is not None


def test_pgp_key_is_found() -> None:
    assert found("private-key", b"-----BEGIN PGP PRIVATE KEY BLOCK-----") is not None


@pytest.mark.parametrize("label", ["CERTIFICATE", "PUBLIC KEY", "RSA PUBLIC KEY"])
def test_what_is_public_stays(label: str) -> None:
    assert found("private-key", f"-----BEGIN {label}-----".encode()) is None


def test_catalogue_knows_what_is_shipped_and_what_is_added() -> None:
    catalogue = Catalogue({"ours": Source("x{3}", 3)})
    assert set(catalogue) == {*SHIPPED, "ours"}
    assert len(catalogue) == len(SHIPPED) + 1
    assert catalogue["ours"] == Source("x{3}", 3)
    assert "theirs" not in catalogue


def test_unknown_names_are_left_out_and_known_ones_sorted() -> None:
    patterns = Catalogue().patterns(["slack-token", "nonsense", "jwt", "jwt"])
    assert [pattern.name for pattern in patterns.each] == ["jwt", "slack-token"]


def test_marker_names_the_pattern() -> None:
    assert compiled("ours", Source("x", 1)).marker == b"[redacted:ours]"


@pytest.mark.parametrize(
    ("source", "key", "message"),
    [
        (Source("x(", 9), "pattern", "at character 2: '(' is not closed"),
        (Source("x{3}", 2), "max_bytes", "is 2, and `pattern` can match 3 bytes; set 3 or more"),
        (Source("x", MAX_BLOCK_BYTES + 1), "max_bytes", f"at most {MAX_BLOCK_BYTES}"),
        (Source("x", 9, until="y*"), "until", "matches the empty text"),
        (Source("x", 9, until="y+"), "until", "goes on without end"),
        (Source("x+", 9, until="y"), "pattern", "goes on without end"),
    ],
)
def test_invalid_pattern_says_which_key_and_why(source: Source, key: str, message: str) -> None:
    with pytest.raises(PatternInvalid) as caught:
        compiled("ours", source)
    assert caught.value.key == key
    assert message in str(caught.value)


def test_too_many_patterns_are_looked_for_one_by_one() -> None:
    large = {f"p{number}": Source(f"{number}[a-f]{{511}}", 512) for number in range(9)}
    catalogue = Catalogue(large)
    assert catalogue.patterns(list(large)[:8]).any is not None
    assert catalogue.patterns(large).any is None
    assert len(catalogue.patterns(large).each) == 9
