"""Whether Hugging Face's hub answers, asked once and quickly."""

import functools

TIMEOUT_S = 3


@functools.cache
def unreachable() -> str | None:
    """Return why the hub cannot be asked, or None if it answers.

    Its clients retry for half a minute before they say so; one short request decides, and then
    only what is in the local cache is looked up.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return f"{constants.ENDPOINT}: HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception as error:  # the client's errors have no common base across its versions
        return f"{constants.ENDPOINT}: {type(error).__name__}"
    return None
