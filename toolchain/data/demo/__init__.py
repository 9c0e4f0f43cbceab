"""The embedded default: a small sentiment model, its tokenizer and its data, all our own."""

from pathlib import Path
from typing import Final

FOLDER: Final[Path] = Path(__file__).resolve().parent
