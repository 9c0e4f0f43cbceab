"""The built-in demo: small models with their tokenizers and data, all made by this project.

The first says whether a review is positive; the others know the names in one: by tags, and by labels of a review.
"""

from pathlib import Path
from typing import Final

FOLDER: Final[Path] = Path(__file__).resolve().parent

# Name of a model -> its folder. The task of a model, whose TOML names the data, has the same name.
MODELS: Final[dict[str, Path]] = {
    "demo": FOLDER,
    "demo-tokens": FOLDER / "names/tokens",
    "demo-multilabel": FOLDER / "names/multilabel",
}
