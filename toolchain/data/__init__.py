"""Labelled rows: tables, tasks, labels, metrics, the hub, and the built-in demo."""
