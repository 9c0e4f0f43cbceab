"""The built-in demo: a small sentiment model with its tokenizer and data, all made by this project."""

from pathlib import Path
from typing import Final

FOLDER: Final[Path] = Path(__file__).resolve().parent
