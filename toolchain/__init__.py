"""From a Hugging Face encoder to a checked, measured, quantised engine."""

__version__ = "0.1.0"
