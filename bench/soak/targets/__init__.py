"""One file for each parser of bytes that are not the daemon's own; each has `target()`, named in `target.NAMES`.

What a target lets through is what its parser documents, and nothing more.
"""
