"""`python -m sandboxd` is the command `sandboxd`."""

from sandboxd.cli import sandboxd_main

if __name__ == "__main__":
    sandboxd_main()
