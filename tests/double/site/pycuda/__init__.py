"""A stand-in for PyCUDA on a machine without a GPU, for tests alone."""

VERSION = (2026, 1)
VERSION_STATUS = ""
VERSION_TEXT = "2026.1"
