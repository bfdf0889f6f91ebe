"""sandboxd runs the code of AI agents: policy decides it, a profile confines it, a journal records it."""

__version__ = "0.1.0"
