"""The certificate and the key that both listeners show, and in words why a pair of files is none."""

import ssl
from pathlib import Path

from toolchain.errors import InputError


def open_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a server that shows a certificate chain; both files are PEM, and without a password.

    Raises:
        InputError: one of the files cannot be read, is something else, or is locked, or they are no pair.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password="")  # without one OpenSSL asks on the terminal, and waits
    except OSError as error:  # of ssl too, which has no words for a user
        raise InputError(_why(cert, key, error)) from error
    return context


def _why(cert: Path, key: Path, error: OSError) -> str:
    give = "Give PEM files with --tls-cert and --tls-key."
    try:
        chain, secret = cert.read_bytes(), key.read_bytes()
    except OSError as unread:
        return f"{unread.filename}: {unread.strerror}. {give}"
    if b"CERTIFICATE-----" not in chain:
        also = ", but a key" if b"PRIVATE KEY-----" in chain else ""
        return f"{cert}: no certificate{also}. {give}"
    if b"PRIVATE KEY-----" not in secret:
        also = ", but a certificate" if b"CERTIFICATE-----" in secret else ""
        return f"{key}: no key{also}. {give}"
    if b"ENCRYPTED" in secret:
        return f"{key}: locked by a password. Give one without: openssl pkey -in {key} -out unlocked.pem."
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"{key}: the key of another certificate than {cert}. Give the two that belong together."
    return f"{cert}: with {key} no certificate and its key, or cut short. {give}"
