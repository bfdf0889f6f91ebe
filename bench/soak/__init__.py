"""Long runs: fuzzers for every parser of bytes that are not ours, and a real daemon under hostile load.

Never part of `make test`: that only proves, in seconds, that the harness finds a bug. Started by `make soak`.
"""
