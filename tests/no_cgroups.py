"""What to put before a command line so that the command, as root, finds no cgroup hierarchy: a node without any.

In a mount namespace of its own; nothing outside the command sees it.
"""

_HIDE = 'umount --recursive --lazy /sys/fs/cgroup; exec "$0" "$@"'
PREFIX = ("/usr/bin/unshare", "--mount", "--propagation=private", "/bin/sh", "-ec", _HIDE)
