"""Faults of a certificate and its key have plain messages, and OpenSSL never prompts for a password."""

import os
import re
import shutil
import ssl
import subprocess

import pytest

from toolchain.errors import InputError
from toolchain.serve.tls import open_tls

MAKE = """
req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost -keyout key -out cert
ecparam -name prime256v1 -genkey -noout -out other
pkcs8 -topk8 -in key -passout pass:secret -out locked
ec -in key -aes128 -passout pass:secret -out locked-of-old
x509 -in cert -outform DER -out binary
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    for line in MAKE.split("\n")[1:-1]:
        subprocess.run([openssl, *line.split()], cwd=folder, check=True, capture_output=True)
    (folder / "cut").write_bytes((folder / "cert").read_bytes()[:200])
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(("cert", "key"), [("cert", "key"), ("both", "both")])
def test_a_certificate_and_its_key_are_accepted(folder, cert, key):
    assert isinstance(open_tls(folder / cert, folder / key), ssl.SSLContext)


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("cert", "locked", "locked: the key needs a password. Remove the password: openssl pkey"),
        ("cert", "locked-of-old", "locked-of-old: the key needs a password. Remove the password: openssl pkey"),
        ("cert", "absent", "absent: No such file or directory. Give PEM files with --tls-cert and --tls-key."),
        ("absent", "key", "absent: No such file or directory. Give PEM"),
        ("cert", ".", "not a regular file. Replace it with a file"),
        ("fifo", "key", "fifo: this is not a regular file. Replace it with a file"),
        ("cert", "fifo", "fifo: this is not a regular file. Replace it with a file"),
        ("key", "cert", "key: the file contains no certificate, but a key. Give PEM"),
        ("cert", "cert", "cert: the file contains no key, but a certificate. Give PEM"),
        ("binary", "key", "binary: the file contains no certificate. Give PEM"),
        ("cert", "binary", "binary: the file contains no key. Give PEM"),
        ("cert", "other", "other: the key does not belong to the certificate "),
        ("cut", "key", "cut: OpenSSL cannot read this certificate with "),
    ],
)
def test_a_wrong_certificate_or_key_has_a_plain_message(folder, cert, key, message):
    with pytest.raises(InputError, match=re.escape(message)):
        open_tls(folder / cert, folder / key)
