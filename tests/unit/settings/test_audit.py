import pytest

from sandboxd import config
from tests.unit.settings.complaints import complaint


def test_nothing_is_deleted_unless_somebody_says_so() -> None:
    audit = config.parse(b"", "c.yaml").audit
    assert (audit.retain_seconds, audit.retain_bytes, audit.durability) == (None, None, "write")


def test_what_is_kept_has_room_for_the_newest_segment() -> None:
    text = b"audit: {segment_bytes: 65536, retain_bytes: 131072, retain_seconds: 3600}"
    assert config.parse(text, "c.yaml").audit.retain_bytes == 131072


@pytest.mark.parametrize(
    ("audit", "expected"),
    [
        ("retain_bytes: 131072", "retain_bytes must be at least twice segment_bytes, 134217728"),
        ("segment_bytes: 65536, retain_bytes: 131071", "retain_bytes: input should be greater"),
        ("retain_seconds: 1", "retain_seconds: input should be greater"),
        ("checkpoint_seconds: 0", "checkpoint_seconds: input should be greater"),
        ("on_failure: ignore", "on_failure: input should be 'continue' or 'kill'"),
        ("refusals_per_minute: 0", "refusals_per_minute: input should be greater"),
        ("durability: none", "durability: input should be 'write' or 'fsync'"),
    ],
)
def test_complaint_names_what_would_mend_it(audit: str, expected: str) -> None:
    assert expected in complaint(f"audit: {{{audit}}}\n")
