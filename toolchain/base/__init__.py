"""Helpers for all other packages: atomic writing of files, types of arrays and batches, progress on the terminal."""
