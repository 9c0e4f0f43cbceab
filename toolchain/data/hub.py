"""Checks, quickly and once per process, whether the Hugging Face hub can be reached."""

import functools

# Seconds to wait for the hub: enough for a slow connection, while the hub's own clients retry for half a minute.
TIMEOUT_S = 3


@functools.cache
def unreachable() -> str | None:
    """Return why the hub cannot be reached, or None if it can.

    Callers that get a reason look into the local cache only.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return f"{constants.ENDPOINT}: HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception as error:  # the class depends on the version of the client
        return f"{constants.ENDPOINT}: {type(error).__name__}"
    return None
