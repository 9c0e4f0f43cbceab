"""The head of a model whose outputs have these names."""

from typing import Any

from toolchain.data.tasks import Task
from toolchain.heads import find_head
from toolchain.heads.contract import Head


def head_of(*labels: str, name: str = "sequence", **task: Any) -> Head:
    """Return the head `name` for a task with `task` as further keys."""
    return find_head(Task(name="t", text_columns=("s",), label_column="l", head=name, **task), labels)
