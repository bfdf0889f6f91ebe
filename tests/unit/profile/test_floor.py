import pytest

from sandboxd.profile import floor
from sandboxd.profile.rules import holds
from sandboxd.profile.seccomp import is_syscall

ATTEMPTED = (
    "ptrace process_vm_readv kexec_file_load bpf io_uring_setup keyctl mount fsopen open_tree move_mount "
    "mount_setattr fspick pivot_root chroot umount2 unshare setns name_to_handle_at open_by_handle_at "
    "perf_event_open reboot sethostname clock_settime adjtimex swapon acct quotactl init_module finit_module "
    "delete_module iopl ioperm syslog fanotify_init seccomp shmget msgget semget inotify_add_watch userfaultfd "
    "pidfd_getfd"
)


def allowed(name: str, *args: int) -> bool:
    return holds(floor.ARGUMENTS[name], (*args, *(0,) * (6 - len(args))))


def test_every_name_of_the_floor_is_a_system_call() -> None:
    assert [name for name in (*floor.NEVER, *floor.ARGUMENTS, *floor.ALWAYS_ENOSYS) if not is_syscall(name)] == []


@pytest.mark.parametrize("name", ATTEMPTED.split())
def test_each_call_of_the_attempts_that_must_fail_is_never_allowed(name: str) -> None:
    assert name in floor.NEVER


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("clone", (0x10000000 | 17,)),  # CLONE_NEWUSER | SIGCHLD
        ("clone", (0xDEAD_0000_0002_0000,)),  # CLONE_NEWNS under garbage
        ("socket", (40, 1, 0)),  # AF_VSOCK
        ("socket", (17, 3, 0)),  # AF_PACKET
        ("socket", (2, 3, 1)),  # SOCK_RAW
        ("socket", (2, 1, 262)),  # MPTCP
        ("socket", (2, 1, 132)),  # SCTP
        ("socket", (2, 2, 1)),  # ping socket
        ("socket", (2, 5, 0)),  # SEQPACKET over IP
        ("socket", (1, 3, 0)),  # unix raw
        ("socket", (16, 3, 12)),  # NETLINK_NETFILTER
        ("socket", (16, 3, 9)),  # NETLINK_AUDIT
        ("socket", (38, 5, 0)),  # AF_ALG
        ("socketpair", (2, 1, 0)),
        ("sendto", (3, 0, 0, 0x20000000)),
        ("sendmsg", (3, 0, 0x20004000)),
        ("sendmmsg", (3, 0, 0, 0x20000000)),
        ("setsockopt", (3, 6, 30)),  # TCP_FASTOPEN_CONNECT
        ("setsockopt", (3, 6, 31)),  # TCP_ULP
        ("setsockopt", (3, 1, 26)),  # SO_ATTACH_FILTER
        ("setsockopt", (3, 0, 64)),  # IPT_SO_SET_REPLACE
        ("ioctl", (0, 0x5412)),  # TIOCSTI
        ("ioctl", (0, 0xFFFF_FFFF_0000_5412)),
        ("ioctl", (0, 0x541C)),  # TIOCLINUX
        ("ioctl", (0, 0x40086602)),  # FS_IOC_SETFLAGS
        ("prctl", (22, 2)),  # PR_SET_SECCOMP
        ("prctl", (4, 1)),  # PR_SET_DUMPABLE on
        ("prctl", (35,)),  # PR_SET_MM
        ("prctl", (0x59616D61,)),  # PR_SET_PTRACER
        ("prctl", (47,)),  # PR_CAP_AMBIENT
        ("fcntl", (0, 1024)),  # F_SETLEASE
        ("fcntl", (0, 1026)),  # F_NOTIFY
        ("mknod", (0, 0o020666)),
        ("mknodat", (0, 0, 0o060666)),
        ("prlimit64", (1,)),
        ("prlimit64", (0, 4, 1 << 40)),  # RLIMIT_CORE 0 would start the host's core_pattern handler
        ("setrlimit", (4,)),
        ("fcntl", (0, 1031)),  # F_SETPIPE_SZ on the daemon's pipes
        ("sendto", (3, 0, 0, 1)),  # MSG_OOB
        ("sendmsg", (3, 0, 0x4001)),
        ("personality", (0x0040000,)),
        ("personality", (0x0400000,)),
        ("memfd_create", (0, 4)),
        ("mmap", (0, 0, 0, 0x40022)),
    ],
)
def test_arguments_of_known_attacks_are_refused(name: str, args: tuple[int, ...]) -> None:
    assert not allowed(name, *args)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("clone", (0x3D0F00,)),  # pthread_create
        ("clone", (0x01200011,)),  # fork of glibc
        ("socket", (1, 1 | 0x80000, 0)),
        ("socket", (2, 1 | 0x80800, 6)),
        ("socket", (10, 2, 17)),
        ("socket", (16, 3 | 0x80000, 0)),
        ("socketpair", (1, 5, 0)),
        ("sendto", (3, 0, 0, 0x4000)),  # MSG_NOSIGNAL
        ("setsockopt", (3, 6, 1)),  # TCP_NODELAY
        ("setsockopt", (3, 41, 26)),  # IPV6_V6ONLY
        ("ioctl", (0xFFFFFFFF00000000, 0x5401)),
        ("prctl", (15,)),
        ("prctl", (4, 0)),
        ("fcntl", (0, 1030)),
        ("mknod", (0, 0o010644)),
        ("prlimit64", (0, 7)),
        ("prlimit64", (0, 7, 1 << 40)),
        ("prlimit64", (0, 4, 0, 1 << 40)),  # getrlimit
        ("setrlimit", (0,)),
        ("personality", (0xFFFFFFFF,)),
        ("mmap", (0, 0, 3, 0x22)),
    ],
)
def test_arguments_of_ordinary_programs_pass(name: str, args: tuple[int, ...]) -> None:
    assert allowed(name, *args)
