"""Seeded hostile HTTP: no response that belongs to another request, no fault, and nothing left behind.

test_fuzz.py damages tensors, and test_servicer.py messages of gRPC.
"""

import contextlib
import os
import random
import re
import socket
import time

import pytest

TRAILER = b"a: b\r\n"
# Statuses of responses to hostile data. 100 precedes one.
ALLOWED = {100, 200, 400, 403, 404, 405, 413, 501, 503}
GROWTH = 1.1


def marked(number):
    """Return a valid request, and the text of its response that no other request has."""
    body = b'{"text": "%s"}' % (b"a" * number)
    return b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def labels(found):
    return [int(label) for label in re.findall(rb'"label":"(\d+)"', found)]


def chunked(generator, body):
    """Return a body in random chunks, some with extensions, and with trailers."""
    parts, at = [], 0
    while at < len(body):
        size = generator.randrange(1, 9)
        part = body[at : at + size]
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), generator.choice([b"", b";a=b", b';a="b"']), part))
        at += size
    return b"".join([*parts, b"0\r\n", TRAILER * generator.randrange(3), b"\r\n"])


def head(generator, number):
    """Return a request with an unusual head."""
    body = b'{"text": "%s"}' % (b"a" * number)
    fields = [
        b"Host: x",
        generator.choice([b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"]),
        *generator.sample(
            [
                b"Connection: Upgrade, HTTP2-Settings",
                b"Upgrade: h2c",
                b"Expect: 100-continue",
                b"Content-Length: %d" % generator.randrange(99),
                b"Transfer-Encoding: gzip, chunked",
                b"Content-Length: +9",
                b"Host: y",
                b"a : b",
                b" folded",
                b"A: \x00",
                b"Connection: close",
            ],
            generator.choice([0, 1, 1, 2]),
        ),
    ]
    generator.shuffle(fields)
    data = chunked(generator, body) if b"Transfer-Encoding: chunked" in fields else body
    return b"POST /classify HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + data


def damaged(generator, data):
    """Return bytes with up to three of them changed, removed or inserted."""
    blob = bytearray(data)
    for _ in range(generator.randrange(4)):
        at = generator.randrange(len(blob))
        blob[at : at + generator.randrange(2)] = generator.choice([b"", b"\r", b"\n", b" ", b"\0", b":", b"0", b"\xff"])
    return bytes(blob)


def exchange(address, packets):
    host, port = address.split(":")
    found = b""
    with (
        socket.create_connection((host, int(port)), 60) as client,
        contextlib.suppress(OSError),
    ):  # the server may close first
        for packet in packets:
            client.sendall(packet)
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            found += data
    return found


def settled(descriptors, most):
    """Return the number of a process' descriptors, once it is small: the last connection is just being closed."""
    end = time.monotonic() + 60
    while (found := len(os.listdir(descriptors))) > most and time.monotonic() < end:
        time.sleep(0.01)
    return found


def attack(address, generator):
    """Send valid requests around a hostile one. Those before it are answered, and none gets another's response."""
    first, hostile, last = (generator.randrange(start, start + 20) for start in (1, 30, 60))
    data = marked(first) + damaged(generator, head(generator, hostile)) + marked(last)
    cut = generator.randrange(len(data))
    found = exchange(address, [data[:cut], data[cut:]] if generator.random() < 0.5 else [data])
    answered = labels(found)
    assert answered[:1] == [first], (data, found)
    assert last not in answered[:-1], (data, found)  # damage changes the hostile text by three bytes at most
    statuses = {int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", found)}
    assert statuses <= ALLOWED, (data, found)


@pytest.mark.parametrize("cases", [200, pytest.param(10_000, marks=pytest.mark.stress)])
def test_hostile_requests_are_refused_and_leave_nothing(fake, service, cases):
    generator = random.Random(18)
    with fake.running(service) as address:
        assert labels(exchange(address, [marked(7)])) == [7]  # the server accepts, and has opened what it keeps
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(cases):
            attack(address, generator)
            service.seen.clear()
        assert labels(exchange(address, [marked(7)])) == [7]
        assert settled("/proc/self/fd", before) <= before


@pytest.mark.stress
def test_memory_and_descriptors_return_after_ten_thousand_hostile_requests(served_demo):
    generator = random.Random(81)

    def rounds(count):
        for _ in range(count):
            data = damaged(generator, head(generator, 9))
            exchange(served_demo.address, [data])
        return served_demo.resident_mb()

    descriptors = f"/proc/{served_demo.process.pid}/fd"
    before, start = rounds(1000), len(os.listdir(descriptors))
    after = rounds(10_000)
    assert after < GROWTH * before
    assert settled(descriptors, start) <= start
    assert "Traceback" not in served_demo.stderr()
