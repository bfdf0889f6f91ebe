"""The one exception of the command line itself; everything else that goes wrong is the client's `SandboxdError`."""


class Mistake(Exception):
    """A value that cannot be used, or a file that cannot be read or written; the message says what would mend it."""
