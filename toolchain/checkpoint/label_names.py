"""The check of the label names in a config.json: id2label, label2id and num_labels must not contradict each other."""

import logging
import re
from pathlib import Path
from typing import Any

from toolchain.errors import InputError

log = logging.getLogger(__name__)


def check_labels(file: Path, config: dict[str, Any]) -> int:  # the keys depend on the architecture
    """Return the number of labels in a config.json, after checking that their names are valid and consistent.

    Raises:
        InputError: keys contradict each other, or a name is empty or not valid Unicode. The message names the keys.
    """
    named, number = config.get("id2label") or {}, config.get("num_labels")
    if sorted(map(str, named)) != sorted(map(str, range(len(named)))):
        raise InputError(f"{file}: id2label is {named}. Its keys must be 0, 1, 2 and so on.")
    if nameless := [index for index, name in named.items() if name is None or not str(name).strip()]:
        raise InputError(f"{file}: id2label has no name for {nameless[0]}. Name every class.")
    if halves := [name for name in map(str, named.values()) if re.search("[\ud800-\udfff]", name)]:
        raise InputError(
            f"{file}: id2label has {halves[0]!r}, with one half of a surrogate pair. Write the whole character."
        )
    if number is not None and not str(number).isdecimal():
        raise InputError(f"{file}: num_labels is {number!r}. It must be the number of classes.")
    if named and number is not None and str(number) != str(len(named)):
        raise InputError(
            f"{file}: num_labels is {number}, but id2label has {len(named)} names. Name every class in id2label, and "
            "remove num_labels."
        )
    by_name, by_label = {str(name): int(index) for index, name in named.items()}, config.get("label2id") or {}
    if not isinstance(by_label, dict):
        raise InputError(f"{file}: label2id is {by_label}. It must have the index of each label, or be left out.")
    for name, index in by_label.items():
        if str(index) != str(by_name.get(str(name), index)):
            raise InputError(
                f"{file}: {name} has the index {index} in label2id, but {by_name[str(name)]} in id2label. "
                "Find out which index is right, and correct the other."
            )
    _check_names(file, list(by_name), by_label, stated=number is not None)
    return len(named) or int(2 if number is None else number)


def _check_names(file: Path, names: list[str], by_label: dict[str, Any], *, stated: bool) -> None:
    """Log a warning if only label2id has real names, which transformers does not read.

    `names` are the names in id2label, and `stated` tells whether num_labels is there.

    Raises:
        InputError: id2label and num_labels are missing, so that the number of labels is unknown.
    """
    others = [str(name) for name in by_label if str(name) not in names]
    if not others or not all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return
    missing = "id2label is missing" if not names else f"id2label has the names {', '.join(names)}"
    what = f"{file}: label2id has the names {', '.join(others)}, but {missing}"
    if not names and not stated and len(others) != 2:  # transformers assumes two labels by default
        raise InputError(f"{what}. Add id2label with the names of label2id.")
    log.warning(
        "%s. Only names in id2label are used. If the names in label2id are right, write them into id2label.", what
    )
