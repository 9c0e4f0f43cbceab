"""Evaluate a model: choose the file and the backend to run, measure them, save results, and compare results."""
