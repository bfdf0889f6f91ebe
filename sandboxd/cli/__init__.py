"""The two commands: `sandboxd` starts and checks a node, `sandboxctl` speaks to it through the public client.

Nothing here decides anything. What costs start-up time is imported by the command that needs it.
"""

from sandboxd.cli.entry import sandboxctl_main, sandboxd_main

__all__ = ["sandboxctl_main", "sandboxd_main"]
