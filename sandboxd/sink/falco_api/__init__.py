"""Generated from proto/falco by proto/generate.py. Do not edit."""
