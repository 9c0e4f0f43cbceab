"""The token that clients show, for HTTP and gRPC alike."""

import hmac
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from toolchain.errors import InputError

# Characters of a token. 16 random letters and digits cannot be guessed over a network.
MIN_TOKEN_LENGTH = 16


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        InputError: the file cannot be read, or its content is not a token.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Give a file that contains the token.") from error
    except UnicodeDecodeError:
        raise InputError(f"{path}: the token is not ASCII. Use letters, digits and punctuation.") from None
    if len(token) < MIN_TOKEN_LENGTH or not all("!" <= character <= "~" for character in token):
        raise InputError(
            f"{path}: the token is not one word of at least {MIN_TOKEN_LENGTH} letters, digits and punctuation marks. "
            "Make one: openssl rand -hex 32."
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`. A name other than localhost counts as reachable by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_authorized(headers: Mapping[bytes, bytes], token: str) -> bool:
    """Return whether a request's headers contain the token. The time it takes reveals nothing about the token."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return hmac.compare_digest(given.strip(), token.encode()) and scheme.lower() == b"bearer"
