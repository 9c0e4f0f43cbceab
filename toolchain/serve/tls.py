"""The TLS certificate and its private key, which both servers use.

OpenSSL's errors about these files are replaced by messages that say what is wrong with which file.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from toolchain.base.files import MAX_SECRET_BYTES, open_file
from toolchain.errors import InputError

ADVICE = "Give PEM files with --tls-cert and --tls-key."


@dataclass(frozen=True)
class Tls:
    """The paths of two PEM files: the certificate chain, and its private key."""

    cert: Path
    key: Path


def open_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """Return a server's TLS context for a certificate chain and its key, both PEM files without a password.

    Raises:
        InputError: a file cannot be read or has other contents, the key is encrypted, or the key does not belong to the
            certificate.
    """
    cert_data, key_data = _read(cert), _read(key)  # refuses a FIFO, which OpenSSL would wait for
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password="")  # without `password`, OpenSSL would prompt for one
    except OSError as error:  # ssl.SSLError is an OSError; its message does not help a user
        raise InputError(_explain(cert, key, cert_data, key_data, error)) from error
    return context


def _read(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(MAX_SECRET_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. {ADVICE}") from error


def _explain(cert: Path, key: Path, cert_data: bytes, key_data: bytes, error: OSError) -> str:
    if b"CERTIFICATE-----" not in cert_data:
        instead = ", but a key" if b"PRIVATE KEY-----" in cert_data else ""
        return f"{cert}: the file contains no certificate{instead}. {ADVICE}"
    if b"PRIVATE KEY-----" not in key_data:
        instead = ", but a certificate" if b"CERTIFICATE-----" in key_data else ""
        return f"{key}: the file contains no key{instead}. {ADVICE}"
    if b"ENCRYPTED" in key_data:
        return f"{key}: the key needs a password. Remove the password: openssl pkey -in {key} -out unlocked.pem."
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"{key}: the key does not belong to the certificate {cert}. Give the two that belong together."
    return f"{cert}: OpenSSL cannot read this certificate with {key}; perhaps a file is cut short. {ADVICE}"
