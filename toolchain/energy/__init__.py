"""Measure energy: of inference under load (`eval`, `compare`, `clocks`), and of a command or Python code (`power`)."""
