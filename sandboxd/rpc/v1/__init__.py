"""Generated from proto/sandboxd/v1 by proto/generate.py. Do not edit."""
