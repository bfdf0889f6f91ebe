"""Entry of the main process. `sandboxd serve` ends here; see the package for what it is and is not allowed."""

import signal

# Before anything that takes time: a reload that is asked for during the start waits for the loop, and does not end us.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

# ruff: noqa: E402
import codecs
import gc
import os
import resource
import sys as python

from sandboxd.spawner import reaper, sys
from sandboxd.spawner.options import foreign_variables, own_environment, parse
from sandboxd.spawner.service import Service
from sandboxd.spawner.site import StartRefused, settle


def main() -> int:
    options = parse(python.argv[1:])
    if foreign_variables():
        # What this process was exec'd with stays readable in its memory and in that of everything forked from it.
        os.execve(python.executable, python.orig_argv, own_environment(os.environ))
    reaper.leave_pid_1()
    os.umask(0o022)  # the stage, its views and what is revealed must be passable for other uids
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    for name in ("ascii", "latin-1", "utf-8"):
        codecs.lookup(name)  # loads its module now: on the stage the interpreter's own files are out of reach
    try:
        site = settle(options)
    except (StartRefused, OSError) as error:
        _log(f"cannot start: {error}")
        return 1
    sys.prctl(sys.PR_SET_DUMPABLE, 0)  # not earlier: the files of its own id maps would not be its own
    gc.collect()
    gc.freeze()
    return Service(options, site, _log).run()


def _log(message: str) -> None:
    os.write(2, f"sandboxd: {message}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    python.exit(main())
