"""The redaction patterns by their names: those that are shipped, and those of the configuration. Compiled at first use.

Matching is RE2's: in time linear in the text, whatever the text is. Called by `settings` to check a pattern, and by
`redaction`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Protocol

from sandboxd.redaction.expression import Expression, parse
from sandboxd.redaction.syntax import ExpressionInvalid

NAME = r"^[a-z][a-z0-9-]{0,63}$"
MAX_BLOCK_BYTES = 1024 * 1024
# Of memory, at most: for each automaton of a pattern, which has up to five, and for those that look for any of several.
AUTOMATON_BYTES = 1024 * 1024
ANY_AUTOMATON_BYTES = 4 * 1024 * 1024
MAX_POSITIONS_TOGETHER = 4096  # beyond, each pattern is looked for by itself: one automaton for all would be the slower

_BLOCK_BYTES: Final = 64 * 1024


class PatternInvalid(ValueError):
    """`key` is the one of `pattern`, `max_bytes` and `until` that is wrong."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Source:
    """A pattern as it is written. No match is longer than `max_bytes`, but where `pattern` ends in a class without end.

    With `until`, a match goes from what `pattern` finds to the end of what `until` finds, or to `max_bytes`.
    """

    pattern: str
    max_bytes: int
    until: str = ""


class Match(Protocol):
    def span(self) -> tuple[int, int]: ...


class Automaton(Protocol):
    """What is used of RE2's compiled expressions."""

    def search(self, text: bytes, pos: int, endpos: int) -> Match | None: ...


@dataclass(frozen=True, slots=True)
class Finder:
    """`found` finds one match, `begun` what at the end of a text may become one."""

    found: Automaton
    begun: Automaton

    def undecided(self, text: bytes, start: int, end: int) -> int:
        """From where on what stands there may still become a match, or a longer one; `end` if nothing does."""
        begun = self.begun.search(text, start, end)
        return end if begun is None else begun.span()[0]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One that is compiled. At most one of `over` and `until` is there."""

    name: str
    expression: Expression
    start: Finder
    over: Automaton | None
    until: Finder | None
    max_bytes: int

    @property
    def marker(self) -> bytes:
        return marker(self.name)


def marker(name: str) -> bytes:
    """What stands where a match was."""
    return f"[redacted:{name}]".encode()


@dataclass(frozen=True, slots=True)
class Patterns:
    """Several, in the order of their names; `any` sees at once that none of them begins, if they are not too many."""

    each: tuple[Pattern, ...]
    any: Finder | None


# Each begins with something of its own, so that next to nothing is held back while text streams.
SHIPPED: Final[Mapping[str, Source]] = {
    # IAM user guide, "IAM identifiers", unique identifiers: AKIA is an access key, ASIA a temporary one of STS.
    "aws-access-key-id": Source(r"(?:AKIA|ASIA)[A-Z0-9]{16}", 20),
    # The key itself has nothing of its own; this is how the AWS CLI's files and environment variables name it.
    "aws-secret-access-key": Source(
        r"""(?i)aws_?secret_?access_?key["']?[ \t]{0,8}[:=][ \t]{0,8}["']?[a-z0-9/+]{40}""", 96
    ),
    # RFC 6750, section 2.1, with the alphabet of b64token. Words of prose are shorter than 20.
    "bearer-token": Source(r"(?i)bearer[ \t]{1,8}[a-z0-9._~+/=-]{20,}", 64),
    # GitHub docs, "About authentication to GitHub", token formats; a fine-grained one begins with github_pat_.
    "github-token": Source(r"(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{22,}", 64),
    # GitLab docs, "GitLab token overview", token prefixes. Routable tokens hold dots.
    "gitlab-token": Source(r"gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_.-]{20,}", 64),
    # Google Cloud docs, "Manage API keys": the key string is of 39 characters.
    "google-api-key": Source(r"AIza[A-Za-z0-9_-]{35}", 39),
    # RFC 7515, section 3.1: base64url of {" or { " and the first parameter of a header: one of RFC 7515, 4.1 (alg jku
    # jwk kid x5u x5c x5t typ cty crit), RFC 7516, 4.1 (enc zip), RFC 7518, 4 (epk apu apv iv tag p2s p2c), RFC 7797
    # (b64), RFC 8555, 6 (nonce url), RFC 8225, 8 (ppt), RFC 7519, 5.3 (iss). All that hangs on it is taken.
    "jwt": Source(
        r"ey(?:J(?:hbG|qa3|qd2|raW|4N[WX]|0eX|jdH|jcm|lbm|6aX|lcG|hcH|pd|0YW|wM[mn]|iNj|ub2|1cm|wcH|pc3)"
        r"|Ai(?:YWxn|amt1|andr|a2lk|eDV[01j]|dHlw|Y3[JR]|ZW5j|emlw|ZXBr|YXB[12]|aX|dGFn|cDJ[jz]|YjY0|bm9u|dXJs|cHB0))"
        r"[A-Za-z0-9_.-]{16,}",
        64,
    ),
    # GitHub blog, "Announcing npm's new access token format".
    "npm-token": Source(r"npm_[A-Za-z0-9]{36}", 40),
    # RFC 7468, sections 2, 10 and 11, PKCS#1 and SEC1 keys of OpenSSL, OpenSSH's PROTOCOL.key, and RFC 9580, 6.2.
    "private-key": Source(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
        _BLOCK_BYTES,
        until=r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    ),
    # PyPI help, "API tokens": a macaroon whose first bytes are the same for all.
    "pypi-token": Source(r"pypi-AgE[A-Za-z0-9_-]{32,}", 64),
    # Slack API docs, "Token types".
    "slack-token": Source(r"(?:xox[a-z]|xapp)-[A-Za-z0-9.-]{10,}", 32),
    # Stripe docs, "API keys": secret and restricted ones, of live and test mode.
    "stripe-key": Source(r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}", 64),
}


class Catalogue(Mapping[str, Source]):
    """Those that are shipped and `more`, whose names are others."""

    def __init__(self, more: Mapping[str, Source] = MappingProxyType({})) -> None:
        self._sources = {**SHIPPED, **more}

    def __getitem__(self, name: str) -> Source:
        return self._sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def patterns(self, names: Iterable[str]) -> Patterns:
        """Those of `names` that are known."""
        return _together(tuple((name, self._sources[name]) for name in sorted({*names} & self._sources.keys())))


@lru_cache(maxsize=64)
def _together(sources: tuple[tuple[str, Source], ...]) -> Patterns:
    each = tuple(compiled(name, source) for name, source in sources)
    if len(each) < 2:
        return Patterns(each, each[0].start if each else None)
    expressions = [pattern.expression for pattern in each]
    if sum(expression.positions for expression in expressions) > MAX_POSITIONS_TOGETHER:
        return Patterns(each, None)
    return Patterns(each, _finder("pattern", expressions, ANY_AUTOMATON_BYTES))


@lru_cache(maxsize=256)
def compiled(name: str, source: Source) -> Pattern:
    """`PatternInvalid` if it is none, or may match more than it says."""
    start = _parsed("pattern", source.pattern)
    if not start.longest <= source.max_bytes <= MAX_BLOCK_BYTES:
        raise PatternInvalid(
            "max_bytes",
            f"is {source.max_bytes}, and `pattern` can match {start.longest} bytes; set {start.longest} or more, "
            f"at most {MAX_BLOCK_BYTES}",
        )
    over, until = None, None
    if source.until:
        closing = _parsed("until", source.until)
        if start.goes_on or closing.goes_on:
            key = "pattern" if start.goes_on else "until"
            raise PatternInvalid(key, "goes on without end, and there is `until`; bound its last repeat: {1,64}")
        until = _finder("until", [closing])
    elif start.goes_on:
        over = _automaton("pattern", start.re2_over)
    return Pattern(name, start, _finder("pattern", [start]), over, until, source.max_bytes)


def _parsed(key: str, text: str) -> Expression:
    try:
        return parse(text)
    except ExpressionInvalid as error:
        raise PatternInvalid(key, str(error)) from error


def _finder(key: str, expressions: Sequence[Expression], memory_bytes: int = AUTOMATON_BYTES) -> Finder:
    found = b"|".join(expression.re2 for expression in expressions)
    begun = b"(?:%b)\\z" % b"|".join(expression.re2_begun for expression in expressions)
    return Finder(_automaton(key, found, memory_bytes), _automaton(key, begun, memory_bytes))


def _automaton(key: str, expression: bytes, memory_bytes: int = AUTOMATON_BYTES) -> Automaton:
    import re2  # takes a while, and most nodes redact nothing

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # a byte is a character
    options.longest_match = True
    options.log_errors = False
    options.max_mem = memory_bytes
    try:
        automaton: Automaton = re2.compile(expression, options)
    except re2.error as error:
        raise PatternInvalid(key, "is too large for the engine; make its repeats smaller") from error
    return automaton
