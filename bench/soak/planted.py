"""A bug on purpose: an exception that no parser may raise, behind three bytes that no seed begins with.

Finding it takes feedback from coverage, so a harness that lost its guidance, or swallows exceptions, is found out.
Used with `--planted` and by the harness's own test.
"""

from dataclasses import replace

from bench.soak.target import Target


def planted(target: Target) -> Target:
    """The same target with the bug in front of its parser."""

    def run(data: bytes) -> None:
        _bug(data)
        target.run(data)

    return replace(target, run=run, modules=(*target.modules, __name__))


# One condition a line: that is what coverage can tell apart.
def _bug(data: bytes) -> None:
    if data[:1] != b"b":
        return
    if data[1:2] != b"u":
        return
    if data[2:3] != b"g":
        return
    raise KeyError("planted")
