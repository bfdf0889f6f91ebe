"""The floor of system calls: what no profile can allow, and the arguments every allowed call is held to regardless.

Data with reasons, no code that a profile could reach. Profiles may narrow these rules and never widen them. Read by
`checks` (refuses a profile) and `seccomp` (compiles the rules into every filter).
"""

from sandboxd.profile.rules import WORD, Match, Rule, both, one_of

# Known calls that no profile may allow. All answer EPERM, since a program that probes for them must see a refusal
# rather than an old kernel.
_NEVER_GROUPS: tuple[tuple[str, str], ...] = (
    ("ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd", "reach into other processes"),
    ("kexec_load kexec_file_load reboot", "replace or stop the host's kernel"),
    ("init_module finit_module delete_module create_module query_module get_kernel_syms", "load code into the kernel"),
    ("bpf perf_event_open lookup_dcookie", "program or watch the host's kernel"),
    ("io_uring_setup io_uring_enter io_uring_register", "operations on a ring never pass this filter"),
    ("add_key request_key keyctl", "keyrings are not confined by any namespace"),
    ("mount umount umount2 pivot_root chroot", "change the view of files"),
    ("open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr", "change the view of files, new interface"),
    ("unshare setns", "nested namespaces open the attack surface of the kernel's privileged code"),
    ("name_to_handle_at open_by_handle_at", "open files around the view (the Shocker escape)"),
    ("seccomp", "a second filter can silence this one's notifications"),
    ("userfaultfd", "stops the kernel inside a copy at will, which turns races into exploits"),
    ("vmsplice", "maps user pages into pipes; source of several kernel escapes"),
    ("move_pages migrate_pages mbind set_mempolicy get_mempolicy set_mempolicy_home_node", "rarely tested kernel code"),
    ("inotify_init inotify_init1 inotify_add_watch inotify_rm_watch", "shows what others do with shared files"),
    ("fanotify_init fanotify_mark", "shows or stops what others do with files"),
    ("shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl ipc",
     "SysV objects outlive their makers; POSIX ones in /dev/shm do not"),
    ("mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr", "message queues outlive their makers"),
    ("iopl ioperm modify_ldt vm86 vm86old", "hardware and descriptor tables"),
    ("syslog", "reads the host's kernel log"),
    ("swapon swapoff acct quotactl quotactl_fd nfsservctl vhangup uselib", "administration of the host"),
    ("sethostname setdomainname", "the name of the sandbox belongs to the spawner"),
    ("clock_settime clock_adjtime settimeofday adjtimex stime", "the host's clock"),
    ("memfd_secret", "memory that no limit counts"),
    ("ustat sysfs _sysctl bdflush remap_file_pages", "obsolete kernel code"),
)  # fmt: skip

NEVER: dict[str, str] = {name: why for names, why in _NEVER_GROUPS for name in names.split()}

# clone3 hides its flags behind a pointer, where no filter can see them; ENOSYS makes every libc fall back to clone.
ALWAYS_ENOSYS = frozenset({"clone3"})

CLONE_NEW = 0x7E020000  # NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET
MAP_HUGETLB = 0x40000
MSG_OOB = 0x1
MSG_FASTOPEN = 0x20000000
RLIMIT_CORE = 4
MFD_HUGETLB = 0x4
_S_IFMT = 0xF000
_TYPE = WORD & ~(0x80000 | 0x800)  # everything of a socket type but SOCK_CLOEXEC and SOCK_NONBLOCK

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
_STREAM, _DGRAM, _RAW, _SEQPACKET = 1, 2, 3, 5


def _without(index: int, bits: int) -> tuple[Rule, ...]:
    return ((Match(index, bits, 0),),)


def _socket(families: tuple[int, ...], types: tuple[int, ...], protocols: tuple[int, ...]) -> tuple[Rule, ...]:
    return both(both(one_of(0, families), one_of(1, types, _TYPE)), one_of(2, protocols))


_UNIX_SOCKETS = _socket((AF_UNIX,), (_STREAM, _DGRAM, _SEQPACKET), (0,))

# Read and set of terminals that the sandbox made itself, non-blocking mode, close-on-exec, interface names. Never
# TIOCSTI and TIOCLINUX (type into or paste from someone's terminal), FS_IOC_SETFLAGS, or any device's own commands.
_IOCTLS = (
    0x5401, 0x5402, 0x5403, 0x5404, 0x5405, 0x5407, 0x5408, 0x5409, 0x540A, 0x540B,  # TCGETS … TCFLSH
    0x540E, 0x540F, 0x5410, 0x5411, 0x5413, 0x5414, 0x5422, 0x5429,  # TIOCSCTTY, groups, size, TIOCNOTTY, TIOCGSID
    0x80045430, 0x40045431, 0x80045439, 0x5441, 0x80045438,  # TIOCGPTN TIOCSPTLCK TIOCGPTLCK TIOCGPTPEER TIOCGPKT
    0x541B, 0x5421, 0x5450, 0x5451, 0x5452,  # FIONREAD FIONBIO FIONCLEX FIOCLEX FIOASYNC
    0x8910, 0x8912, 0x8913, 0x8915, 0x8921, 0x8933, 0x8927,  # SIOCGIF NAME CONF FLAGS ADDR MTU INDEX HWADDR
)  # fmt: skip

# Never PR_SET_SECCOMP, PR_SET_MM, PR_SET_PTRACER, PR_CAP_AMBIENT, PR_CAPBSET_DROP, PR_SET_SECUREBITS,
# PR_SET_SYSCALL_USER_DISPATCH, PR_SCHED_CORE.
_PRCTLS = (
    1, 2,  # PR_SET_PDEATHSIG PR_GET_PDEATHSIG
    3,  # PR_GET_DUMPABLE
    7,  # PR_GET_KEEPCAPS
    13, 15, 16,  # PR_GET_TIMING PR_SET_NAME PR_GET_NAME
    21, 23, 27,  # PR_GET_SECCOMP PR_CAPBSET_READ PR_GET_SECUREBITS
    29, 30,  # PR_SET_TIMERSLACK PR_GET_TIMERSLACK
    36, 37,  # PR_SET_CHILD_SUBREAPER PR_GET_CHILD_SUBREAPER
    38, 39,  # PR_SET_NO_NEW_PRIVS PR_GET_NO_NEW_PRIVS
    40, 41, 42,  # PR_GET_TID_ADDRESS PR_SET_THP_DISABLE PR_GET_THP_DISABLE
    52, 65, 66,  # PR_GET_SPECULATION_CTRL PR_SET_MDWE PR_GET_MDWE
    0x53564D41, 0x41555856,  # PR_SET_VMA PR_GET_AUXV
)  # fmt: skip
_PR_SET_DUMPABLE = 4

# Never MADV_MERGEABLE: where the host merges equal pages (KSM), how long a write takes tells whether anybody else, such
# as a virtual machine beside the sandbox, holds a page of that content. Nor MADV_HWPOISON and MADV_SOFT_OFFLINE.
_ADVICE = (
    0, 1, 2, 3, 4, 8, 9, 10, 11,  # NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED FREE REMOVE DONTFORK DOFORK
    13, 14, 15, 16, 17, 18, 19,  # UNMERGEABLE HUGEPAGE NOHUGEPAGE DONTDUMP DODUMP WIPEONFORK KEEPONFORK
    20, 21, 22, 23, 24, 25,  # COLD PAGEOUT POPULATE_READ POPULATE_WRITE DONTNEED_LOCKED COLLAPSE
    102, 103,  # GUARD_INSTALL GUARD_REMOVE
)  # fmt: skip

# Locks are in: sqlite, git and pip need them on the workspace, and a filter sees only the descriptor's number. On a
# shared read-only mount they are a channel between sandboxes, so `strict` narrows this list and denies flock. Never
# F_NOTIFY and F_SETLEASE (they watch others), F_SETOWN and F_SETSIG, nor F_SETPIPE_SZ: the pages of stdin, stdout and
# stderr count against the daemon, and once it has too many every new pipe of any sandbox is a page or two.
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 36, 37, 38, 1030, 1032, 1033, 1034)
FCNTL_LOCKS = frozenset({5, 6, 7, 36, 37, 38})  # F_GETLK F_SETLK F_SETLKW and their F_OFD_ forms

# Never SO_ATTACH_FILTER and BPF, SO_ZEROCOPY, SO_BINDTODEVICE, TCP_FASTOPEN(_CONNECT), TCP_ULP, TCP_REPAIR, nor any
# option of netfilter, which lives on the IP level above 63.
_SOCKET_OPTIONS: tuple[tuple[int, tuple[int, ...]], ...] = (
    (1, (2, 5, 6, 7, 8, 9, 10, 13, 15, 16, 18, 19, 20, 21, 29, 35, 66, 67)),  # SOL_SOCKET
    (6, (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 18, 25)),  # IPPROTO_TCP
    (0, (1, 2, 8, 10, 11, 24, 32, 33, 34, 35, 36)),  # IPPROTO_IP
    (41, (16, 17, 18, 19, 20, 21, 23, 25, 26, 49, 67)),  # IPPROTO_IPV6
)

# Any limit but the size of core files: at our 1 the kernel skips a handler that `core_pattern` pipes to, which runs as
# root on the host and reads what the program made of its memory; at 0 it does not. Four bits tell 4 from the others.
_NOT_CORE: tuple[tuple[int, int], ...] = ((1, 1), (2, 2), (4, 0), (8, 8))


def _other_limits(index: int) -> tuple[Rule, ...]:
    return tuple((Match(index, mask, value),) for mask, value in _NOT_CORE)


_MYSELF = one_of(0, (0,))  # any other pid would throttle someone else
_CORE_LIMIT = both(_MYSELF, one_of(1, (RLIMIT_CORE,)))
_NO_NEW_LIMIT: tuple[Rule, ...] = ((Match(2, (1 << 64) - 1, 0),),)  # a null pointer

ARGUMENTS: dict[str, tuple[Rule, ...]] = {
    "clone": _without(0, CLONE_NEW),
    "socket": (
        *_UNIX_SOCKETS,
        *_socket((AF_INET, AF_INET6), (_STREAM,), (0, 6)),  # TCP; not MPTCP and SCTP
        *_socket((AF_INET, AF_INET6), (_DGRAM,), (0, 17)),  # UDP; not ICMP
        *_socket((AF_NETLINK,), (_DGRAM, _RAW), (0,)),  # NETLINK_ROUTE: getifaddrs and getaddrinfo ask it
    ),
    "socketpair": _UNIX_SOCKETS,
    # MSG_OOB: hardly used and often broken; over unix sockets it led out of other sandboxes (CVE-2025-38236).
    "sendto": _without(3, MSG_FASTOPEN | MSG_OOB),
    "sendmsg": _without(2, MSG_FASTOPEN | MSG_OOB),
    "sendmmsg": _without(3, MSG_FASTOPEN | MSG_OOB),
    "setsockopt": tuple(
        rule for level, options in _SOCKET_OPTIONS for rule in both(one_of(1, (level,)), one_of(2, options))
    ),
    "ioctl": one_of(1, _IOCTLS),
    "prctl": (*one_of(0, _PRCTLS), *both(one_of(0, (_PR_SET_DUMPABLE,)), one_of(1, (0,)))),
    "fcntl": one_of(1, _FCNTLS),
    "madvise": one_of(2, _ADVICE),
    "mknod": one_of(1, (0, 0x1000, 0x8000, 0xC000), _S_IFMT),  # regular files, FIFOs, sockets; no devices
    "mknodat": one_of(2, (0, 0x1000, 0x8000, 0xC000), _S_IFMT),
    "prlimit64": (*both(_MYSELF, _other_limits(1)), *both(_CORE_LIMIT, _NO_NEW_LIMIT)),
    "setrlimit": _other_limits(0),
    "personality": one_of(0, (0, WORD)),  # the query and the default; not READ_IMPLIES_EXEC or ADDR_NO_RANDOMIZE
    "memfd_create": _without(1, MFD_HUGETLB),
    "mmap": _without(3, MAP_HUGETLB),  # huge pages are the host's, and the memory limit does not count them
}

# memfd_create where the kernel has no vm.memfd_noexec for this sandbox: MFD_NOEXEC_SEAL set, MFD_EXEC clear.
MEMFD_SEALED: tuple[Rule, ...] = ((Match(1, 0x18, 0x8),),)

# Answered with success and not carried out: many programs switch core files off and end if they cannot, and none is
# ever written anyway. Holds for what is in here and neither in ARGUMENTS nor asks for an answer.
PRETENDED: dict[str, tuple[Rule, ...]] = {"prlimit64": _CORE_LIMIT}
ASKS: dict[str, tuple[Rule, ...]] = {"prlimit64": both(_CORE_LIMIT, _NO_NEW_LIMIT)}
