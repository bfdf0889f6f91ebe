"""The payload that is looked at: it stands still; on SIGUSR1 it makes 50 more threads and says so."""

import signal
import sys
import threading


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    threading.stack_size(256 << 10)  # where no cgroup counts memory, the limit is one of address space
    sys.stdout.write("up\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGUSR1})
    for _ in range(50):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    sys.stdout.write("more\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
