"""Names that mean something to the analysis: which functions and commands do what, in each language.

Data. A name that ends in `.*` stands for whatever is in it. Read by the languages; what is not in here is not found.
"""

from sandboxd.finding import FindingCode

_C = FindingCode

# Where credentials lie, as parts of a path that stands in the source as text.
CREDENTIAL_PLACES = (
    ".ssh", "id_rsa", "id_ed25519", "id_ecdsa", ".aws/", "/etc/shadow", "/etc/gshadow", ".netrc", ".git-credentials",
    ".docker/config.json", ".kube/config", "/run/secrets", ".npmrc", ".pypirc", ".config/gcloud", ".azure/", ".gnupg",
    "/proc/self/environ", "/proc/1/environ", ".pgpass", ".my.cnf", ".vault-token", ".config/gh/", "169.254.169.254",
    "metadata.google.internal",
)  # fmt: skip


def credential_places(text: str) -> list[str]:
    return [place for place in CREDENTIAL_PLACES if place in text]


def meaning(names: dict[str, FindingCode], name: str) -> FindingCode | None:
    """None also for what such a function returns (`os.popen()`)."""
    return None if name.endswith(")") else names.get(name) or names.get(name.rpartition(".")[0] + ".*")


PYTHON: dict[str, FindingCode] = {
    **dict.fromkeys(
        (
            "os.system", "os.popen", "os.fork", "os.forkpty", "os.startfile", "os.posix_spawn", "os.posix_spawnp",
            "posix.system", "posix.execv", "posix.execve", "posix.fork", "posix.posix_spawn",
            "_posixsubprocess.fork_exec",
            *(f"os.exec{kind}" for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
            *(f"os.spawn{kind}" for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
            *(f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen", "getoutput",
                                                "getstatusoutput")),
            "pty.spawn", "pty.fork", "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
            "multiprocessing.Process", "multiprocessing.Pool", "concurrent.futures.ProcessPoolExecutor",
            "pexpect.spawn", "pexpect.run", "commands.getoutput", "commands.getstatusoutput", "popen2.*",
        ),
        _C.PROCESS_START,
    ),
    **dict.fromkeys(
        (
            "socket.socket", "socket.create_connection", "socket.create_server", "socket.fromfd", "_socket.socket",
            "socketserver.TCPServer", "socketserver.UDPServer", "http.server.HTTPServer", "asyncio.open_connection",
            "asyncio.start_server", "urllib.request.urlopen", "urllib.request.urlretrieve", "urllib.urlopen",
            "urllib2.urlopen", "http.client.HTTPConnection", "http.client.HTTPSConnection", "ftplib.FTP",
            "ftplib.FTP_TLS", "smtplib.SMTP", "smtplib.SMTP_SSL", "imaplib.IMAP4", "imaplib.IMAP4_SSL", "poplib.POP3",
            "telnetlib.Telnet", "xmlrpc.client.ServerProxy", "paramiko.SSHClient", "websockets.connect",
            "websocket.create_connection", "urllib3.PoolManager", "urllib3.request", "aiohttp.ClientSession",
            *(f"{module}.{name}" for module in ("requests", "httpx") for name in ("get", "post", "put", "delete",
                                                                                  "patch", "head", "request")),
            "requests.Session", "httpx.Client", "httpx.AsyncClient", "httpx.stream",
        ),
        _C.SOCKET_OPEN,
    ),
    **dict.fromkeys(
        (
            "eval", "exec", "compile", "execfile", "runpy.run_path", "runpy.run_module", "types.FunctionType",
            "types.CodeType", "code.InteractiveInterpreter", "code.InteractiveConsole", "code.interact",
            "code.compile_command", "codeop.*",
            "timeit.timeit", "timeit.repeat",
        ),
        _C.EVAL_STRING,
    ),
    **dict.fromkeys(
        (
            *(f"{module}.{name}" for module in ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal")
              for name in ("load", "loads", "Unpickler")),
            "shelve.open", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "jsonpickle.decode", "joblib.load",
            "torch.load", "pandas.read_pickle",
        ),
        _C.EVAL_OBJECT,
    ),
    **dict.fromkeys(
        ("ctypes.CDLL", "ctypes.PyDLL", "ctypes.cdll", "ctypes.pydll", "ctypes.cdll.*", "ctypes.CFUNCTYPE",
         "ctypes.pythonapi", "ctypes.pythonapi.*", "_ctypes.dlopen", "cffi.FFI"),
        _C.CALL_NATIVE,
    ),
    **dict.fromkeys(("__import__", "importlib.import_module", "importlib.__import__", "imp.load_source",
                     "importlib.util.spec_from_file_location"), _C.IMPORT_DYNAMIC),
    **dict.fromkeys(("operator.attrgetter", "operator.methodcaller", "inspect.getattr_static"), _C.CALL_DYNAMIC),
}  # fmt: skip
PYTHON_DECODES = frozenset(
    {
        *(f"base64.{name}" for name in ("b64decode", "b32decode", "b16decode", "a85decode", "b85decode",
                                        "standard_b64decode", "urlsafe_b64decode", "decodebytes", "decodestring")),
        "binascii.unhexlify", "binascii.a2b_base64", "binascii.a2b_hex", "bytes.fromhex", "bytearray.fromhex",
        "codecs.decode", "zlib.decompress", "gzip.decompress", "bz2.decompress", "lzma.decompress", "marshal.loads",
        "chr",
    }
)  # fmt: skip
# Their first argument is a line for a shell.
PYTHON_SHELLS = frozenset({"os.system", "os.popen", "posix.system", "subprocess.getoutput",
                           "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"})  # fmt: skip

JAVASCRIPT: dict[str, FindingCode] = {
    **dict.fromkeys(
        (
            *(f"child_process.{name}" for name in ("exec", "execSync", "execFile", "execFileSync", "spawn", "spawnSync",
                                                   "fork")),
            "cluster.fork", "worker_threads.Worker", "Deno.run", "Deno.Command", "Bun.spawn", "Bun.spawnSync",
            "process.execve", "execa", "execa.*", "shelljs.exec",
        ),
        _C.PROCESS_START,
    ),
    **dict.fromkeys(
        (
            *(f"net.{name}" for name in ("connect", "createConnection", "createServer", "Socket", "Server")),
            *(f"tls.{name}" for name in ("connect", "createServer")), "dgram.createSocket",
            *(f"{module}.{name}" for module in ("http", "https") for name in ("get", "request", "createServer")),
            "http2.connect", "http2.createServer", "fetch", "WebSocket", "XMLHttpRequest", "EventSource", "axios",
            "axios.*", "got", "got.*", "node-fetch", "ws", "undici.fetch", "undici.request", "Deno.connect",
            "Deno.listen", "navigator.sendBeacon",
        ),
        _C.SOCKET_OPEN,
    ),
    **dict.fromkeys(
        ("eval", "Function", "GeneratorFunction", "AsyncFunction", "execScript", "module._compile", "vm.Script",
         *(f"vm.{name}" for name in ("runInThisContext", "runInNewContext", "runInContext", "compileFunction",
                                     "SourceTextModule"))),
        _C.EVAL_STRING,
    ),
    **dict.fromkeys(("v8.deserialize", "node-serialize.unserialize", "WebAssembly.compile",
                     "WebAssembly.instantiate", "WebAssembly.Module"), _C.EVAL_OBJECT),
    **dict.fromkeys(("process.binding", "process._linkedBinding", "process.dlopen", "Deno.dlopen", "ffi-napi.Library",
                     "bun:ffi.dlopen"), _C.CALL_NATIVE),
    **dict.fromkeys(("module.createRequire", "module._load", "process.mainModule.require", "process.getBuiltinModule"),
                    _C.IMPORT_DYNAMIC),
    **dict.fromkeys(("Reflect.get", "Reflect.apply", "Reflect.construct"), _C.CALL_DYNAMIC),
}  # fmt: skip
JAVASCRIPT_DECODES = frozenset({"atob", "unescape", "decodeURIComponent", "String.fromCharCode",
                                "String.fromCodePoint", "zlib.inflateSync", "zlib.gunzipSync", "zlib.unzipSync",
                                "zlib.brotliDecompressSync", "zlib.inflateRawSync"})  # fmt: skip
JAVASCRIPT_SHELLS = frozenset({"child_process.exec", "child_process.execSync", "shelljs.exec"})
JAVASCRIPT_PACKAGES = frozenset({"axios", "got", "node-fetch", "ws", "undici", "execa", "shelljs", "net", "tls", "http",
                                 "https", "http2", "dgram", "vm", "v8", "zlib", "cluster", "child_process",
                                 "worker_threads"})  # fmt: skip
JAVASCRIPT_TIMERS = frozenset({"setTimeout", "setInterval", "setImmediate"})

# Commands of a shell. Those that fetch, those that decode, and those that run the command that follows them.
FETCHERS = frozenset({"curl", "wget", "fetch", "aria2c", "http", "lwp-request"})
TALKERS = FETCHERS | {"nc", "ncat", "netcat", "socat", "ssh", "scp", "sftp", "rsync", "telnet", "ftp", "openssl"}
DECODERS = frozenset({"base64", "base32", "basenc", "xxd", "uudecode", "openssl", "gunzip", "zcat", "gzip", "bunzip2",
                      "bzcat", "xz", "xzcat", "unxz", "rev", "tr"})  # fmt: skip
# Each with the letters of its options that take a word.
WRAPPERS = {
    "sudo": "ugChpRTDrt", "doas": "uC", "env": "uCS", "nohup": "", "nice": "n", "ionice": "cnp", "time": "fo",
    "timeout": "ks", "setsid": "", "stdbuf": "ioe", "xargs": "aIEdnPsL", "exec": "a", "command": "", "builtin": "",
    "busybox": "", "unshare": "", "chroot": "", "strace": "eopsu", "coproc": "", "flock": "wE", "watch": "n",
    "parallel": "jaIS", "runuser": "ugG", "setpriv": "",
}  # fmt: skip
WRAPPERS_OF_A_FILE = frozenset({"chroot", "flock"})  # one word of theirs comes before the command
LONG_OPTIONS_OF_A_WORD = frozenset(
    {
        "--user", "--group", "--host", "--prompt", "--chdir", "--unset", "--signal", "--kill-after", "--adjustment",
        "--max-args", "--max-procs", "--delimiter", "--arg-file", "--output", "--timeout", "--interval", "--jobs",
        "--reuid", "--regid", "--groups",
    }
)  # fmt: skip
EXECUTING_OPTIONS = frozenset({"-exec", "-execdir", "-ok", "-okdir"})  # of find
# Commands with a line for a shell in an option.
LINE_OPTIONS = {
    **dict.fromkeys(("su", "runuser", "script", "flock"), ("-c", "--command")),
    "env": ("-S", "--split-string"),
}
# What the variables begin with that make a program load or run something else.
STEERING_VARIABLES = ("LD_", "BASH_ENV", "ENV", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "NODE_OPTIONS", "PERL5",
                      "RUBYOPT", "GIT_", "PROMPT_COMMAND")  # fmt: skip
# Interpreters of languages that are not read, each with its options that take code.
OTHER_INTERPRETERS = {
    "perl": frozenset({"-e", "-E"}),
    "ruby": frozenset({"-e"}),
    "php": frozenset({"-r"}),
    "lua": frozenset({"-e"}),
}
