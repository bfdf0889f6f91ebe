"""A redaction pattern and a text: it means what RE2 says it means, and however the text is cut, the same is left.

First line the pattern, second line its `until` (or nothing), behind them the text.
"""

import re2

from bench.soak.target import Broken, Target
from sandboxd.redaction.patterns import PatternInvalid, Patterns, Source, compiled
from sandboxd.redaction.stream import StreamRedactor
from sandboxd.redaction.syntax import MAX_CHARS

MAX_BYTES = 1024


def run(data: bytes) -> object:
    pattern, _, rest = data.decode("latin-1").partition("\n")
    until, _, text = rest.partition("\n")
    one = compiled("ours", Source(pattern, MAX_BYTES, until))
    whole = text.encode("latin-1")
    _as_re2_reads_it(pattern, whole)
    patterns = Patterns((one,), one.start)
    out = _redacted([whole], patterns)
    for size in (1, 2, 7):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        for found_at_once in (patterns, Patterns((one,), None)):
            if _redacted(pieces, found_at_once) != out:
                raise Broken(f"{pattern!r} until {until!r} in {whole!r}, by {size}")
    return None if out == whole else text


def _redacted(pieces: list[bytes], patterns: Patterns) -> bytes:
    redactor = StreamRedactor(patterns, lambda _: None)
    return b"".join([redactor.feed(piece) for piece in pieces]) + redactor.finish()


def _as_re2_reads_it(pattern: str, text: bytes) -> None:
    """RE2 folds the case of Latin-1's letters, and an expression of ours only that of ASCII's."""
    if pattern.startswith("(?i)") and ("\\x" in pattern or not text.isascii()):
        return
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.longest_match = True
    options.log_errors = False
    written = re2.compile(pattern.encode(), options).search(text)
    bare = StreamRedactor(Patterns((compiled("ours", Source(pattern, MAX_BYTES)),), None), lambda _: None)
    redacted = bare.feed(text) + bare.finish()
    end = len(text) if written is None else written.start()
    if redacted[:end] != text[:end] or (written is None) is (redacted != text):
        raise Broken(f"{pattern!r} in {text!r}: {written!r}")


def target() -> Target:
    seeds = (
        b"ab{1,3}c\n\nxabbc abbbbc",
        b"a[bc]+\n\nabcbcd ab",
        b"<b>\n</b>\n<b>x</b> <b>y",
        b"(?i)to(?:k|K)en[-_]\\d{2,4}\n\nTOKEN-123 tokeN_1",
        b"(a|bc?){2}\\x2e\n\nabc.aa.b",
        b"[^a-c\\]]\\s\\W.\n\nd .x",
        b"-----BEGIN [A-Z ]{0,9}-----\n-----END\n-----BEGIN A-----x-----EN-----END",
    )
    words = (b"{1,2}", b"{3,}", b"(?:", b"(?i)", b"[^", b"\\x", b"\\w", b"|", b"a-z", b"+", b"*", b"?", b")", b"]")
    return Target(
        "redaction",
        tuple(f"sandboxd.redaction.{name}" for name in ("syntax", "expression", "patterns", "search", "stream")),
        run,
        (PatternInvalid,),
        seeds,
        words,
        max_bytes=MAX_CHARS,
    )
