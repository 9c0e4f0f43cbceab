"""The scripts that made the demo: its texts and its model."""
