"""A bundle.json of somebody else, whatever it says, is used or refused in one line."""

import copy
import json
import random
import shutil

import pytest

from toolchain.bundle import MANIFEST, digest_of
from toolchain.errors import ToolchainError
from toolchain.evaluation.target import find_target

VALUES = [None, True, -1, 2**70, 0.5, "", "\x1b[2J", "../x", [], ["x"], {}, {"x": 1}, [[]]]
# Values that are tried in each place.
TRIED = 2


def places(value, found=()):
    """Yield the place of each value in JSON, as keys from the outside."""
    yield found
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*found, key))


def test_any_value_in_any_place_is_used_or_refused_in_a_line(demo_bundle, tmp_path):
    folder = shutil.copytree(demo_bundle, tmp_path / "bundle")
    known, choose = json.loads((folder / MANIFEST).read_text()), random.Random(3)
    everywhere = [place for place in places(known) if place and place != ("sha256",)]
    said: list[str] = []
    for place in everywhere * TRIED:
        changed = copy.deepcopy(known)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = choose.choice(VALUES)
        changed["sha256"] = digest_of(changed)
        (folder / MANIFEST).write_text(json.dumps(changed))
        try:
            find_target({"backend": "ort", "device": "cpu"}, folder, runs=True)
        except ToolchainError as error:
            said.append(str(error))
        except Exception as error:
            pytest.fail(f"{place} = {inner[place[-1]]!r}: {error!r}")
    assert said
    assert not [text for text in said if "\n" in text]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "\x00", "\ud800"])
def test_json_that_nests_too_deeply_is_refused(demo_bundle, tmp_path, text):
    folder = shutil.copytree(demo_bundle, tmp_path / "bundle")
    (folder / MANIFEST).write_text(text, errors="surrogatepass")
    with pytest.raises(ToolchainError, match=r"bundle\.json: the manifest is not JSON: [^\n]*$"):
        find_target({}, folder)
