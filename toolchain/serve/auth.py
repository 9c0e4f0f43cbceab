"""Access control for HTTP and gRPC: the token of the service, and the origin of a request.

A service without a token refuses requests that a web page of another site sends from a browser on this machine.
"""

import hmac
import ipaddress
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from toolchain.base.files import MAX_SECRET_BYTES, open_file
from toolchain.errors import InputError
from toolchain.serve.protocol import Reason, RefusedError

log = logging.getLogger("toolchain")

# Least number of characters of a token. 16 random letters and digits cannot be guessed over a network.
MIN_TOKEN_LENGTH = 16


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        InputError: the file cannot be read, or its content is not a valid token.
    """
    try:
        with open_file(path) as file:
            token = file.read(MAX_SECRET_BYTES).decode("ascii").strip()
            found = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Give a file that contains the token.") from error
    except UnicodeDecodeError:
        raise InputError(f"{path}: the token is not ASCII. Use letters, digits and punctuation.") from None
    if len(token) < MIN_TOKEN_LENGTH or not all("!" <= character <= "~" for character in token):
        raise InputError(
            f"{path}: the token is not one word of at least {MIN_TOKEN_LENGTH} letters, digits and punctuation marks. "
            "Make one: openssl rand -hex 32."
        )
    # Only the owner is warned. A secret that is mounted into a container has another owner.
    if found.st_mode & stat.S_IROTH and found.st_uid == os.getuid():
        log.warning("%s: every user of this machine can read the token. Run: chmod 600 %s", path, path)
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`.

    Among names, this holds for localhost only: any other name may lead to an address that other machines can reach.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_authorized(headers: Mapping[bytes, bytes], token: str) -> bool:
    """Return whether a request's headers contain the token.

    Tokens are compared in constant time, so the duration reveals nothing about the token.
    """
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return hmac.compare_digest(given.strip(), token.encode()) and scheme.lower() == b"bearer"


def check_origin(headers: Mapping[bytes, bytes], *, changes: bool, public: bool) -> None:
    """Refuse a request that a page of another web site sent from a browser on this machine.

    Such a page can send requests to 127.0.0.1. It can also read the responses if the domain name of its site resolves
    to 127.0.0.1 (DNS rebinding). A service that only this machine can reach therefore refuses every Host that may be a
    name in the public DNS. A `public` service may have such a name itself.

    A browser that sends no Sec-Fetch-Site header still sends the page's site in Origin, which is compared with Host. A
    `public` service skips this comparison, because a proxy in front of it may have replaced Host.

    Args:
        headers: the request's headers, with names in lower case.
        changes: whether the request may change something, because its method is not GET. A GET request is harmless as
            long as the page cannot read the response.
        public: whether other machines can reach the service.

    Raises:
        RefusedError: the request comes from a page of another site, or Host may be a name in the public DNS.
    """
    host, origin = _name(headers.get(b"host", b"")), headers.get(b"origin", b"")
    is_other = origin != b"" and _name(origin) != host  # file:// has no host name and counts as another site
    site = headers.get(b"sec-fetch-site", b"cross-site" if is_other and not public else b"")
    if changes and site == b"cross-site":
        raise RefusedError(
            Reason.FORBIDDEN, "a page of another web site sent this request, and this service has no token"
        )
    if not public and _is_public(host):
        raise RefusedError(
            Reason.FORBIDDEN,
            "this service has no token, so it accepts only requests to a local name, such as localhost. "
            "Start it with --token-file to use another name.",
        )


def _name(header: bytes) -> str:
    """Return the host name or IP address in a Host or Origin header, in lower case, without scheme and port."""
    host = header.decode("ascii", "replace").rpartition("://")[2]
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.strip("[]").rstrip(".").lower()


def _is_public(name: str) -> bool:
    """Return whether a name may be in the public DNS.

    Such a name has a dot, is not an IP address, and does not end with .localhost.
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." in name and not name.endswith(".localhost")
    return False
