"""Attempts of the table "System calls": each is what an attacker would do, or a variant that cannot hurt the control.

Runs inside the sandbox and, as its control, unconfined in throw-away namespaces. Called by test_system_calls.py.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import stat
import struct
import subprocess
import tempfile
import termios
import time

from .probe_kit import LIBC, Refused, in_child, main, probe, syscall

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWUSER = 0x00020000, 0x40000000, 0x10000000
AT_FDCWD = -100
MS_REMOUNT, MS_BIND = 32, 4096


# --- S01-S08: other processes, kernels, rings, keys


@probe()
def ptrace_traceme() -> None:
    in_child(lambda: _discard(syscall("ptrace", 0, 0, 0, 0)))


@probe()
def ptrace_attach_init() -> None:
    """PTRACE_SEIZE, which unlike PTRACE_ATTACH leaves init running."""
    syscall("ptrace", 0x4206, 1, 0, 0)


def _vm(call: str, pid: int) -> None:
    local = ctypes.create_string_buffer(b"local", 8)
    remote = ctypes.create_string_buffer(b"remote", 8)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(local), 8)
    there = (ctypes.c_size_t * 2)(ctypes.addressof(remote), 8)
    syscall(call, pid, here, 1, there, 1, 0)


@probe()
def process_vm_readv_self() -> None:
    _vm("process_vm_readv", os.getpid())


@probe()
def process_vm_writev_self() -> None:
    _vm("process_vm_writev", os.getpid())


@probe(reached=(errno.EFAULT,))
def process_vm_readv_init() -> None:
    _vm("process_vm_readv", 1)


@probe(reached=(errno.EFAULT,))
def process_vm_writev_init() -> None:
    _vm("process_vm_writev", 1)


@probe(reached=(errno.EINVAL,))
def kexec_load() -> None:
    syscall("kexec_load", 0, 0, 0, 0)


@probe(reached=(errno.EBADF, errno.EINVAL))
def kexec_file_load() -> None:
    syscall("kexec_file_load", -1, -1, 0, 0, 0)


@probe()
def bpf_map_create() -> None:
    syscall("bpf", 0, ctypes.create_string_buffer(struct.pack("<IIII", 2, 4, 4, 1), 128), 128)


@probe()
def io_uring_setup() -> None:
    syscall("io_uring_setup", 1, ctypes.create_string_buffer(120))


@probe()
def add_key() -> None:
    syscall("add_key", b"user", b"sandboxd-probe", b"x", 1, -2)


@probe()
def keyctl_session() -> None:
    syscall("keyctl", 0, -3, 1)


@probe()
def keyctl_user() -> None:
    syscall("keyctl", 0, -4, 1)


@probe(reached=(errno.ENOKEY,))
def request_key() -> None:
    syscall("request_key", b"user", b"sandboxd-probe", None, 0)


@probe()
def userfaultfd() -> None:
    syscall("userfaultfd", 0)


@probe()
def kcmp() -> None:
    syscall("kcmp", os.getpid(), os.getpid(), 0, 0, 1)


@probe()
def pidfd_getfd() -> None:
    syscall("pidfd_getfd", syscall("pidfd_open", os.getpid(), 0), 0, 0)


# --- S09-S11, S21: mounts


@probe()
def mount_tmpfs() -> None:
    syscall("mount", b"t", b"/tmp", b"tmpfs", 0, None)


@probe()
def mount_remount_root() -> None:
    syscall("mount", None, b"/", None, MS_REMOUNT | MS_BIND, None)


@probe()
def mount_proc() -> None:
    syscall("mount", b"p", b"/tmp", b"proc", 0, None)


@probe(reached=(errno.ENODEV, errno.EINVAL))
def mount_overlay() -> None:
    syscall("mount", b"o", b"/tmp", b"overlay", 0, b"lowerdir=/usr,upperdir=/tmp,workdir=/tmp")


@probe(reached=(errno.ENODEV, errno.EINVAL))
def mount_fuse() -> None:
    syscall("mount", b"f", b"/tmp", b"fuse", 0, b"fd=0,rootmode=40000,user_id=0,group_id=0")


@probe(reached=(errno.ENODEV, errno.EINVAL, errno.ENOENT))
def mount_9p() -> None:
    syscall("mount", b"n", b"/tmp", b"9p", 0, b"trans=fd,rfdno=0,wfdno=0")


@probe()
def fsopen() -> None:
    syscall("fsopen", b"tmpfs", 0)


@probe()
def open_tree_clone() -> None:
    syscall("open_tree", AT_FDCWD, b"/", 1)


@probe(reached=(errno.EBADF,))
def move_mount() -> None:
    syscall("move_mount", -1, b"", AT_FDCWD, b"/tmp", 4)


@probe()
def mount_setattr() -> None:
    attributes = ctypes.create_string_buffer(struct.pack("<QQQQ", 0x2, 0, 0, 0), 32)
    syscall("mount_setattr", AT_FDCWD, b"/", 0, attributes, 32)


@probe()
def fspick() -> None:
    syscall("fspick", AT_FDCWD, b"/", 0)


@probe(reached=(errno.EBADF,))
def fsmount() -> None:
    syscall("fsmount", -1, 0, 0)


@probe(reached=(errno.EINVAL, errno.EBADF))
def fsconfig() -> None:
    syscall("fsconfig", -1, 0, None, None, 0)


@probe(reached=(errno.EBUSY, errno.EINVAL))
def pivot_root() -> None:
    syscall("pivot_root", b"/", b"/")


@probe()
def chroot() -> None:
    syscall("chroot", b"/")


@probe(reached=(errno.EINVAL,))
def umount2() -> None:
    syscall("umount2", b"/tmp", 2)


# --- S12-S16, S18: namespaces and handles


@probe()
def unshare_user() -> None:
    in_child(lambda: _discard(syscall("unshare", CLONE_NEWUSER)))


@probe()
def clone_user() -> None:
    child = syscall("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@probe()
def clone3_user() -> None:
    arguments = ctypes.create_string_buffer(struct.pack("<QQQQQQQQ", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
    child = syscall("clone3", arguments, 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@probe()
def unshare_user_net_mount() -> None:
    in_child(lambda: _discard(syscall("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)))


@probe()
def setns_init_mount() -> None:
    in_child(lambda: _discard(syscall("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), CLONE_NEWNS)))


@probe()
def setns_own_mount() -> None:
    in_child(lambda: _discard(syscall("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), CLONE_NEWNS)))


@probe()
def setns_pidfd() -> None:
    in_child(lambda: _discard(syscall("setns", syscall("pidfd_open", 1, 0), CLONE_NEWNS)))


@probe(reached=(errno.EBADF,))
def setns_any() -> None:
    syscall("setns", -1, CLONE_NEWNS)


@probe()
def handle_by_name() -> None:
    handle = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 136)
    syscall("name_to_handle_at", AT_FDCWD, b"/usr", handle, ctypes.create_string_buffer(4), 0)


@probe(reached=(errno.ESTALE,))
def handle_open() -> None:
    handle = ctypes.create_string_buffer(struct.pack("<IiII", 8, 1, 2, 0), 136)
    syscall("open_by_handle_at", os.open("/usr", os.O_RDONLY), handle, 0)


# --- S19-S34: kernel surface


@probe()
def perf_event_open() -> None:
    attributes = ctypes.create_string_buffer(struct.pack("<IIQQQQQ", 1, 112, 0, 0, 0, 0, 1 << 5), 112)
    syscall("perf_event_open", attributes, 0, -1, -1, 0)


@probe()
def personality_no_randomize() -> None:
    in_child(lambda: _discard(syscall("personality", 0x0040000)))


@probe()
def madvise_mergeable() -> None:
    """Equal pages of this process and of others become one, if the host's KSM runs: a way to ask what others hold."""
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page.madvise(mmap.MADV_MERGEABLE)


@probe()
def personality_read_implies_exec() -> None:
    in_child(lambda: _discard(syscall("personality", 0x0400000)))


def _machine_code(code: bytes) -> int:
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


def int80(number: int, first: int = 0, second: int = 0, third: int = 0) -> int:
    words = (b"\xb8", number), (b"\xbb", first), (b"\xb9", second), (b"\xba", third)
    return _machine_code(b"\x53" + b"".join(op + struct.pack("<I", word) for op, word in words) + b"\xcd\x80\x5b\xc3")


@probe()
def int80_getpid() -> str:
    answer = int80(20)
    if answer != os.getpid():
        raise OSError(-answer, "int 0x80 getpid")
    return "answered"


@probe(reached=(errno.EAFNOSUPPORT,))
def int80_socket_vsock() -> None:
    if (answer := int80(359, 40, 1, 0)) < 0:
        raise OSError(-answer, "int 0x80 socket")


@probe()
def x32_getpid() -> None:
    syscall(0x40000000 | 39)


def _terminal_ioctl(request: int, argument: bytes) -> None:
    """On standard input, and where that is no terminal (the call got through) on a controlling terminal of our own."""
    try:
        fcntl.ioctl(0, request, argument)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
    else:
        return
    _, terminal = os.openpty()

    def steal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        fcntl.ioctl(terminal, request, argument)

    in_child(steal)


@probe()
def tiocsti() -> None:
    _terminal_ioctl(termios.TIOCSTI, b"x")


@probe(reached=(errno.ENOTTY, errno.EINVAL))
def tioclinux() -> None:
    _terminal_ioctl(0x541C, b"\x06")


@probe(reached=(errno.EINVAL,))
def reboot_bad_magic() -> None:
    syscall("reboot", 0, 0, 0, 0)


@probe()
def sethostname() -> None:
    syscall("sethostname", b"escaped", 7)


@probe()
def clock_settime() -> None:
    now = time.clock_gettime(time.CLOCK_REALTIME)
    value = struct.pack("<qq", int(now), int(now % 1 * 1e9))
    syscall("clock_settime", 0, ctypes.create_string_buffer(value, 16))


@probe()
def adjtimex_status() -> None:
    buffer = ctypes.create_string_buffer(256)
    syscall("adjtimex", buffer)  # modes 0 only reads: the status written back is the one that is there
    struct.pack_into("<I", buffer, 0, 0x10)
    syscall("adjtimex", buffer)


@probe(reached=(errno.ENOENT,))
def swapon() -> None:
    syscall("swapon", b"/nonexistent-swap", 0)


@probe(reached=(errno.ENOENT,))
def acct() -> None:
    syscall("acct", b"/nonexistent-acct")


@probe()
def quotactl() -> None:
    syscall("quotactl", 0x80000100, None, 0, 0)


@probe(reached=(errno.EFAULT, errno.ENOEXEC, errno.EINVAL))
def init_module() -> None:
    syscall("init_module", 0, 0, b"")


@probe(reached=(errno.EBADF,))
def finit_module() -> None:
    syscall("finit_module", -1, b"", 0)


@probe(reached=(errno.ENOENT,))
def delete_module() -> None:
    syscall("delete_module", b"no_such_module", os.O_NONBLOCK)


@probe()
def iopl() -> None:
    in_child(lambda: _discard(syscall("iopl", 3)))


@probe()
def ioperm() -> None:
    in_child(lambda: _discard(syscall("ioperm", 0x80, 1, 1)))


@probe()
def syslog_read() -> None:
    syscall("syslog", 3, ctypes.create_string_buffer(4096), 4096)


@probe()
def fanotify_init() -> None:
    syscall("fanotify_init", 4, 0)


def _mknod(kind: int, major: int, minor: int) -> None:
    os.mknod(f"{os.getcwd()}/device-{os.getpid()}", kind | 0o666, os.makedev(major, minor))


@probe()
def mknod_character() -> None:
    _mknod(stat.S_IFCHR, 1, 1)


@probe()
def mknod_block() -> None:
    _mknod(stat.S_IFBLK, 7, 0)


@probe()
def mknod_whiteout() -> None:
    _mknod(stat.S_IFCHR, 0, 0)


def _filter(action: int) -> ctypes.Array:  # type: ignore[type-arg]
    """A sock_fprog of one instruction that returns `action`."""
    instruction = ctypes.create_string_buffer(struct.pack("<HBBI", 0x06, 0, 0, action), 8)
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 1, ctypes.addressof(instruction)), 16)
    _KEEP.append(instruction)
    return program


_KEEP: list[object] = []


def _no_new_privs() -> None:
    LIBC.prctl(38, 1, 0, 0, 0)


@probe()
def seccomp_new_listener() -> None:
    def listen() -> None:
        _no_new_privs()
        syscall("seccomp", 1, 8, _filter(0x7FFF0000))

    in_child(listen)


@probe()
def seccomp_stack_filter() -> None:
    def stack() -> None:
        _no_new_privs()
        syscall("seccomp", 1, 0, _filter(0x7FFF0000))

    in_child(stack)


@probe()
def prctl_stack_filter() -> None:
    def stack() -> None:
        _no_new_privs()
        syscall("prctl", 22, 2, _filter(0x7FFF0000), 0, 0)

    in_child(stack)


@probe()
def shmget() -> None:
    syscall("shmget", 0, 4096, 0o600)


@probe()
def msgget() -> None:
    syscall("msgget", 0, 0o600)


@probe()
def semget() -> None:
    syscall("semget", 0, 1, 0o600)


# --- S40-S43: identity and signals


@probe()
def oom_score_adj() -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")


@probe()
def setuid_root() -> None:
    if os.geteuid() == 0:
        in_child(lambda: os.setresuid(65534, 65534, 0))
    in_child(lambda: os.setuid(0))


@probe()
def setgroups() -> None:
    in_child(lambda: os.setgroups([0, 27]))


@probe()
def setuid_program() -> str:
    """Run su as nobody and look at its effective uid: with its set-uid bit at work it is root's."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    before = os.geteuid()
    child = subprocess.Popen(["/usr/bin/su"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        while True:
            with open(f"/proc/{child.pid}/status", encoding="ascii") as file:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in file)
            if fields["Name"] == "su":
                break
        effective = int(fields["Uid"].split()[1])
    finally:
        child.kill()
        child.communicate()
    if effective == before:
        raise Refused(f"su ran as uid {effective}")
    return f"su ran as uid {effective}"


@probe()
def set_file_capability() -> None:
    path = tempfile.mkstemp(dir=".")[1]
    os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 21, 0, 0, 0))


@probe()
def kill_init() -> None:
    os.kill(1, signal.SIGKILL)


@probe()
def kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)


@probe()
def kill_all() -> None:
    os.kill(-1, signal.SIGKILL)


@probe()
def unknown_600() -> None:
    syscall(600)


@probe()
def unknown_999() -> None:
    syscall(999, 1, 2, 3)


@probe()
def raise_open_files() -> None:
    def lower_then_raise() -> None:
        for hard in (64, 128):
            syscall("prlimit64", 0, resource.RLIMIT_NOFILE, struct.pack("<QQ", 64, hard), None)

    in_child(lower_then_raise)


@probe()
def prlimit_init() -> None:
    current = resource.prlimit(1, resource.RLIMIT_NOFILE)
    resource.prlimit(1, resource.RLIMIT_NOFILE, current)


def _discard(_: object) -> None:
    """Turns a call with a result into one without, for a lambda."""


if __name__ == "__main__":
    main()
