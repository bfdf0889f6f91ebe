"""The process that checks a journal for the daemon: it takes seconds of nothing but computing for each gigabyte.

Changes nothing, and cannot: it may write no file. Started by `verify_process` as a script with its end of a socket pair
and its parent's pid. The question is the journal's directory, a newline and the public key; the answer is JSON.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

from sandboxd.audit.key import parse_public
from sandboxd.audit.verify import verify
from sandboxd.host.confined import ANSWER, FAILED, serve


def answer(_kind: int, body: bytes) -> tuple[int, str]:
    directory, _, pem = body.partition(b"\n")
    try:
        result = verify(Path(os.fsdecode(directory)), parse_public(pem))
    except (OSError, ValueError) as error:
        return FAILED, str(error)
    return ANSWER, json.dumps(dataclasses.asdict(result))


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), answer)
