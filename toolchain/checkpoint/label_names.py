"""The names of the labels in a config.json: id2label, label2id and num_labels, which may contradict each other."""

import logging
import re
from pathlib import Path
from typing import Any

from toolchain.errors import InputError

log = logging.getLogger(__name__)


def check_labels(file: Path, config: dict[str, Any]) -> int:  # config.json of any architecture
    """Refuse names of labels that contradict each other or cannot be written, and return how many labels there are.

    Raises:
        InputError: naming the keys.
    """
    named, number = config.get("id2label") or {}, config.get("num_labels")
    if sorted(map(str, named)) != sorted(map(str, range(len(named)))):
        raise InputError(f"{file}: id2label is {named}. Its keys must be 0, 1, 2 ...")
    if nameless := [index for index, name in named.items() if name is None or not str(name).strip()]:
        raise InputError(f"{file}: id2label has no name for {nameless[0]}. Name every class.")
    if halves := [name for name in map(str, named.values()) if re.search("[\ud800-\udfff]", name)]:
        raise InputError(
            f"{file}: id2label has {halves[0]!r}, with half of a surrogate pair. Write the whole character."
        )
    if number is not None and not str(number).isdecimal():
        raise InputError(f"{file}: num_labels is {number!r}. It must be the number of classes.")
    if named and number is not None and str(number) != str(len(named)):
        raise InputError(
            f"{file}: num_labels is {number}, and id2label names {len(named)}. Name every class in id2label, and "
            "remove num_labels."
        )
    by_name, by_label = {str(name): int(index) for index, name in named.items()}, config.get("label2id") or {}
    if not isinstance(by_label, dict):
        raise InputError(f"{file}: label2id is {by_label}. It must have the index of each label, or be left out.")
    for name, index in by_label.items():
        if str(index) != str(by_name.get(str(name), index)):
            raise InputError(
                f"{file}: label2id says that {name} is {index}, and id2label that it is {by_name[str(name)]}. "
                "Find out which one is right, and fix the other."
            )
    _check_names(file, list(by_name), by_label, stated=number is not None)
    return len(named) or int(2 if number is None else number)


def _check_names(file: Path, names: list[str], by_label: dict[str, Any], *, stated: bool) -> None:
    """Warn of names that stand in label2id alone, which transformers does not read.

    `names` are those of id2label, and `stated` says whether num_labels has their number.

    Raises:
        InputError: id2label is missing, and with it the number of the labels.
    """
    others = [str(name) for name in by_label if str(name) not in names]
    if not others or not all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return
    what = f"{file}: label2id names {', '.join(others)}, and id2label {', '.join(names) or 'is missing'}"
    if not names and not stated and len(others) != 2:  # transformers makes two labels
        raise InputError(f"{what}. Add id2label with these names.")
    log.warning("%s, which is what the labels are called. If label2id is right, write its names into id2label.", what)
