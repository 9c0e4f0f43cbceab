"""The built-in demo: small models with their tokenizers and data, all made by this project.

`demo` says whether a review is positive. `demo-tokens` tags the names in a review. `demo-multilabel` labels a review
with the kinds of names that it contains, and with PRAISE if it is favourable.
"""

from pathlib import Path
from typing import Final

FOLDER: Final[Path] = Path(__file__).resolve().parent

# Name of a demo model -> its folder. The task with the same name describes its data.
MODELS: Final[dict[str, Path]] = {
    "demo": FOLDER,
    "demo-tokens": FOLDER / "names/tokens",
    "demo-multilabel": FOLDER / "names/multilabel",
}
