"""Options that contradict a backend or a bundle."""

from pathlib import Path

from toolchain.bundle import Bundle
from toolchain.errors import UsageError
from toolchain.recipe.options import RecipeValues, flag
from toolchain.recipe.tables import ATTENTIONS, AUTO


def refuse_options(backend: str, changes: RecipeValues) -> None:
    """Refuse options that only another backend has.

    Raises:
        UsageError: naming the option.
    """
    if backend == AUTO:
        raise UsageError("--backend auto: only for eval, predict and serve. Name a runtime, such as ort or openvino.")
    if changes.get("attention") in ATTENTIONS and backend != "torch":
        raise UsageError(f"--attention {changes['attention']}: only with --backend torch. Add it.")
    if changes.get("compile") and backend != "torch":
        raise UsageError("--compile: only with --backend torch. Add it.")
    if backend == "torch" and changes.get("file"):
        raise UsageError(f"--file {changes['file']}: torch runs the checkpoint. Leave it out, or choose --backend ort.")


def refuse_fixed(bundle: Bundle, changes: RecipeValues) -> None:
    """Refuse options that only a new build can change.

    Raises:
        UsageError: a model or a length was asked for that is not the bundle's.
    """
    fixed = {"model": bundle.manifest["model"]["id"], "max_length": bundle.manifest["max_length"]}
    for key, value in fixed.items():
        asked = changes.get(key)
        if asked not in (None, value) and not (key == "model" and Path(asked).resolve() == Path(str(value))):
            raise UsageError(f"{flag(key)} {asked}: {bundle.path} was built with {value}. Build another bundle.")
