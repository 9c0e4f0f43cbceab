"""Checks that refuse options which do not fit the backend or the bundle."""

from pathlib import Path

from toolchain.bundle import Bundle
from toolchain.errors import UsageError
from toolchain.recipe.options import RecipeValues, flag
from toolchain.recipe.tables import ATTENTIONS, AUTO


def refuse_options(backend: str, changes: RecipeValues) -> None:
    """Refuse options that the chosen backend does not have. `changes` are the options that the user gave.

    Raises:
        UsageError: the user gave such an option; the message names it.
    """
    if backend == AUTO:
        raise UsageError("--backend auto: only eval, predict and serve accept auto. Name a backend, such as ort.")
    if changes.get("attention") in ATTENTIONS and backend != "torch":
        raise UsageError(f"--attention {changes['attention']}: works only with --backend torch. Add that option.")
    if changes.get("compile") and backend != "torch":
        raise UsageError("--compile: works only with --backend torch. Add that option.")
    if backend == "torch" and changes.get("file"):
        raise UsageError(
            f"--file {changes['file']}: torch runs the checkpoint, not a file of the bundle. Leave --file out, or "
            "choose --backend ort."
        )


def refuse_fixed(bundle: Bundle, changes: RecipeValues) -> None:
    """Refuse a `--model` or `--max-length` that differs from the one that the bundle was built with.

    Raises:
        UsageError: an option differs, so only a new build can have its value.
    """
    fixed = {"model": bundle.manifest["model"]["id"], "max_length": bundle.manifest["max_length"]}
    for key, value in fixed.items():
        asked = changes.get(key)
        if asked not in (None, value) and not (key == "model" and Path(asked).resolve() == Path(str(value))):
            raise UsageError(
                f"{flag(key)} {asked}: {bundle.path} was built with {value}. Leave the option out, or build another "
                "bundle."
            )
