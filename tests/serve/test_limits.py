"""Bounds of the service that are refused."""

import pytest

from toolchain.errors import UsageError
from toolchain.serve.limits import Limits


@pytest.mark.parametrize("name", vars(Limits()))
def test_a_limit_of_zero_is_refused(name):
    option = {"max_body_bytes": "--max-body", "timeout_s": "--timeout"}.get(name, f"--{name.replace('_', '-')}")
    with pytest.raises(UsageError, match=f"{option} 0: the value is not above zero"):
        Limits(**{name: 0})


def test_a_queue_smaller_than_one_request_is_refused():
    with pytest.raises(UsageError, match="--max-queue 63: a request of --max-batch 64 rows would never fit"):
        Limits(max_queue=63)
