"""One made-up secret of each shipped pattern. Put together here, so that this file holds none that a scanner finds."""

_B64 = "TWFueSBoYW5kcyBtYWtlIGxpZ2h0IHdvcms" * 2


def _text(*parts: str) -> bytes:
    return "".join(parts).encode()


SAMPLES = {
    "aws-access-key-id": _text("AK", "IA", "IOSFODNN7EXAMPLE"),
    "aws-secret-access-key": _text('AWS_SECRET_ACCESS_KEY = "', _B64[:20], "/+", _B64[:18]),
    "bearer-token": _text("Bear", "er ", _B64[:24], "=="),
    "github-token": _text("gh", "p_", _B64[:36]),
    "gitlab-token": _text("gl", "pat-", _B64[:20]),
    "google-api-key": _text("AI", "za", _B64[:35]),
    "jwt": _text("ey", "JhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", ".ey", "JzdWIiOiIxMjM0NTY3ODkwIn0.", _B64[:43]),
    "npm-token": _text("np", "m_", _B64[:36]),
    "private-key": _text(
        "-----BEGIN ", "OPENSSH PRIVATE KEY-----\n", _B64, "\n", _B64, "\n-----END ", "OPENSSH PRIVATE KEY-----"
    ),
    "pypi-token": _text("py", "pi-AgE", "IcHlwaS5vcmc", _B64[:60]),
    "slack-token": _text("xo", "xb-123456789012-", _B64[:24]),
    "stripe-key": _text("sk", "_live_", _B64[:24]),
}
