"""A plan's bytes: a magic word, a JSON header, and the graph."""

import json as _json

from ._setup import SM as _SM
from ._setup import VERSION as _VERSION
from ._types import say as _say

MAGIC = b"ftrt-double\n"
_ABOUT = "IRuntime::deserializeCudaEngine: Error Code"


def pack(header, graph):
    text = _json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + graph


def unpack(data, logger, host_code_allowed=False):
    """Return the header and the graph, or None after saying what is wrong with the plan."""
    if data[: len(MAGIC)] != MAGIC:
        return _refuse(
            logger,
            f"{_ABOUT} 1: Serialization (Serialization assertion magicTagRead == kMAGIC_TAG "
            "failed.Magic tag does not match)",
        )
    start = len(MAGIC) + 8
    size = int.from_bytes(data[len(MAGIC) : start], "little")
    try:
        header = _json.loads(data[start : start + size])
        graph = data[start + size :]
        if len(graph) != header["graph_bytes"]:
            raise ValueError("cut short")
    except (ValueError, KeyError):
        return _refuse(logger, f"{_ABOUT} 1: Serialization (the plan ends too early or is damaged)")
    return (header, graph) if _fits(header, logger, host_code_allowed) else None


def _fits(header, logger, host_code_allowed):
    if header["version"] != _VERSION and not _newer_library(header):
        _refuse(
            logger,
            f"{_ABOUT} 1: Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION "
            f"failed.Version tag does not match. Note: Current Version: {_VERSION}, "
            f"Serialized Engine Version: {header['version']})",
        )
        return False
    if header["sm"] != _SM and not (header["hardware"] == "AMPERE_PLUS" and float(_SM) >= 8):
        _refuse(
            logger,
            f"{_ABOUT} 6: API Usage Error (The engine plan file is generated on an incompatible device, "
            f"expecting compute {_SM} got compute {header['sm']}, please rebuild.)",
        )
        return False
    if header["version_compatible"] and not host_code_allowed:
        _refuse(logger, f"{_ABOUT} 6: API Usage Error (The plan has host code, and engine_host_code_allowed is False)")
        return False
    return True


def _newer_library(header):
    """A version-compatible plan runs on the version it was built by and on later ones."""
    number = [[int(part) for part in version.split(".")] for version in (header["version"], _VERSION)]
    return header["version_compatible"] and number[0] <= number[1]


def _refuse(logger, text):
    _say(logger, "ERROR", text)
