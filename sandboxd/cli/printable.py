"""Text of others as a terminal may be given it. Imports nothing that takes time: `sandboxctl run` needs it too."""

# Letters and marks that print as nothing, or as an empty place, though they count as printable.
_UNSEEN = frozenset(
    (
        "\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u2800", "\u3164", "\uffa0",
        *map(chr, range(0x180B, 0x1810)), *map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0)),
    )
)  # fmt: skip


def printable(text: str) -> str:
    """The text on one line, each character that could steer a terminal or hide as its escape."""
    return "".join(
        char if char.isprintable() and char not in _UNSEEN else char.encode("unicode_escape").decode() for char in text
    )
