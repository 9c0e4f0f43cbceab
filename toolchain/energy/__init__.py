"""Energy: of inference under load (`eval`, `compare --energy`), and of any command or block of Python (`power`)."""
