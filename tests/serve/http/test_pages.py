"""The pages in a real browser: typing a text shows its label, and nothing is loaded from other hosts."""

import base64
import io
import json
import re
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.head_of import head_of
from toolchain.serve.http import openapi, pages
from toolchain.serve.limits import Limits

BARS = "[...document.querySelectorAll('[role=meter]')].map(bar => Number(bar.getAttribute('aria-valuenow')))"
FACTS = (
    "Object.fromEntries("
    "[...document.querySelectorAll('dt')].map(one => [one.textContent, one.nextSibling.textContent]))"
)
EXAMPLES = "[...document.querySelectorAll('.example')]"


@pytest.fixture(scope="module")
def fake(by_path):
    return by_path("serve/http_fake")


@pytest.fixture(scope="module")
def tab(browser):
    return browser


def visit(tab, url, *, width=390, dark=False):
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=True)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    tab.call("Emulation.setEmulatedMedia", features=[scheme])
    tab.events.clear()
    tab.call("Page.navigate", url=url)
    until(tab, "document.readyState === 'complete' && !document.getElementById('ask')?.disabled")


def until(tab, condition):
    deadline = time.monotonic() + 30
    while not tab.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def type_into(tab, text, field="text"):
    tab.evaluate(f"document.getElementById('{field}').focus()")
    tab.call("Input.insertText", text=text)


def press_enter(tab):
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")


def type_and_enter(tab, text, field="text"):
    type_into(tab, text, field)
    press_enter(tab)


def drawn_share(tab):
    """Return the share of the first bar's pixels that have the colour of its fill."""
    box, colour = (
        tab.evaluate(f"JSON.stringify(({found})(document.querySelector('.bar')))")
        for found in (
            "bar => (({x, y, width, height}) => ({x, y, width, height}))(bar.getBoundingClientRect())",
            "bar => getComputedStyle(bar.firstChild).backgroundColor.match(/[0-9]+/g).map(Number)",
        )
    )
    clip = {**json.loads(box), "scale": 1}
    shot = base64.b64decode(tab.call("Page.captureScreenshot", format="png", clip=clip)["data"])
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), int)
    return float((np.abs(pixels - json.loads(colour)).sum(axis=2) < 12).mean())


def browser_errors(tab):
    return tab.happened("Log.entryAdded") + tab.happened("Runtime.exceptionThrown")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_typing_a_text_shows_its_label(tab, fake, tmp_path, width, dark):
    with fake.running(fake.FakeService()) as address:
        visit(tab, f"http://{address}/", width=width, dark=dark)
        type_and_enter(tab, "a gripping <b>film</b>")
        until(tab, "!document.getElementById('answer').hidden")
        tab.screenshot(tmp_path / "page.png")
        assert tab.evaluate("document.getElementById('label').textContent") == "22"
        assert tab.evaluate(BARS) == [0.75, 0.25]
        assert drawn_share(tab) == pytest.approx(0.75, abs=0.03)
        assert tab.evaluate("document.getElementById('model').textContent") == fake.NAME
        assert tab.evaluate(FACTS) == {
            "Labels": "negative, positive",
            "Precision": "int8",
            "Backend": "ort on cpu",
            "File": "model.onnx a1a1a1a1a1a1",
            "Bundle": "b2b2b2b2b2b2",
        }
        assert tab.evaluate("document.querySelector('#facts button').title").startswith("a1" * 32)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        asked = {event["request"]["url"] for event in tab.happened("Network.requestWillBeSent")}
        assert {url.split("/")[2] for url in asked} == {address}
        assert browser_errors(tab) == []


def test_the_page_of_the_real_service_shows_the_label_that_classify_gives(tab, served_demo):
    for sentence in ("a fine film, warm and funny", "dull and far too long"):
        body = json.dumps({"text": sentence}).encode()
        with urllib.request.urlopen(f"{served_demo.url}/classify", body, timeout=60) as answer:
            found = json.load(answer)
        visit(tab, f"{served_demo.url}/")
        type_into(tab, sentence)
        tab.evaluate("document.getElementById('ask').click()")
        until(tab, "!document.getElementById('answer').hidden")
        assert tab.evaluate("document.getElementById('label').textContent") == found["label"]
        bars = tab.evaluate(BARS)
        assert sorted(bars) == pytest.approx(sorted(found["scores"].values()), abs=1e-3)
        assert tab.evaluate("document.getElementById('model').textContent") == "sentiment"
        assert browser_errors(tab) == []


def test_an_example_is_shown_as_text_and_tried_by_the_keyboard(tab, fake):
    rows = [("<script>window.ran = 1</script>", "<b>one</b>"), ("two", "<img src=x onerror='window.ran = 1'>")]
    service = fake.FakeService(texts_per_row=2, shown=openapi.Shown("pairs", head_of("no", "yes").example, rows))
    with fake.running(service) as address:
        visit(tab, f"http://{address}/")
        found = tab.evaluate(f"{EXAMPLES}.map(one => [...one.children].map(part => part.textContent))")
        assert found == [list(row) for row in rows]
        tab.evaluate(f"{EXAMPLES}[0].focus()")
        press_enter(tab)
        until(tab, "!document.getElementById('answer').hidden")
        assert tab.evaluate("document.getElementById('label').textContent") == str(sum(map(len, rows[0])))
        assert tab.evaluate("document.getElementById('pair').value") == "<b>one</b>"
        assert tab.evaluate("window.ran === undefined && !document.querySelector('b, img')")
        assert browser_errors(tab) == []


def test_a_regression_shows_its_number_without_a_bar(tab, fake):
    with fake.running(fake.FakeService(shown=openapi.Shown("stars", head_of("stars").example))) as address:
        visit(tab, f"http://{address}/")
        type_and_enter(tab, "four")
        until(tab, "!document.getElementById('answer').hidden")
        assert tab.evaluate("document.getElementById('label').textContent") == "1.33333"
        assert tab.evaluate(BARS) == []
        assert "numbers" in tab.evaluate(FACTS)["Labels"]


def test_the_digest_is_copied_by_a_click(tab, fake):
    with fake.running(fake.FakeService()) as address:
        visit(tab, f"http://{address}/")
        tab.evaluate("document.querySelector('#facts button').click()")
        assert tab.evaluate("getSelection().toString()") == "a1" * 32


def test_a_refusal_is_shown(tab, fake):
    with fake.running(fake.FakeService(limits=Limits(max_characters=5))) as address:
        visit(tab, f"http://{address}/")
        type_and_enter(tab, "too long")
        until(tab, "!document.getElementById('wrong').hidden")
        assert "too long" in tab.evaluate("document.getElementById('wrong').textContent")


def test_pairs_have_two_fields(tab, fake):
    shown = openapi.Shown("pairs", head_of("no", "yes").example, [("a", "b"), ("c", "d")])
    with fake.running(fake.FakeService(texts_per_row=2, shown=shown)) as address:
        visit(tab, f"http://{address}/")
        type_and_enter(tab, "one", "pair")
        type_and_enter(tab, "two")
        until(tab, "!document.getElementById('answer').hidden")
        assert tab.evaluate("document.getElementById('label').textContent") == "6"


def test_the_token_is_asked_for(tab, fake):
    with fake.running(fake.FakeService(), token="a-token-of-some-length") as address:
        visit(tab, f"http://{address}/")
        until(tab, "!document.getElementById('locked').hidden")
        tab.evaluate("document.getElementById('token').value = 'a-token-of-some-length'")
        type_and_enter(tab, "four")
        until(tab, "!document.getElementById('answer').hidden")
        assert tab.evaluate("document.getElementById('label').textContent") == "4"


def test_the_page_of_the_api_loads_nothing(tab, fake):
    with fake.running(fake.FakeService()) as address:
        visit(tab, f"http://{address}/docs")
        assert len(tab.happened("Network.requestWillBeSent")) == 1
        assert tab.evaluate("document.querySelectorAll('section').length") == 10
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert browser_errors(tab) == []


@pytest.mark.parametrize("page", [pages.load("page.html"), pages.docs(openapi.document(Limits()))], ids=["try", "docs"])
def test_pages_load_nothing_from_other_hosts_and_their_policy_is_strict(page):
    assert not re.search(rb"(?:src|href)=\"(?!/|data:)|https?://|\son\w+=|style=\"", page.body)
    policy = dict(page.headers)[b"content-security-policy"]
    assert b"default-src 'none'" in policy
    assert b"unsafe" not in policy
