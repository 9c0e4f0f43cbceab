"""The page in a real browser, and both pages' policy: a sentence is typed, a label is seen, nobody else is asked."""

import re
import time

import pytest

from toolchain.serve import openapi, pages
from toolchain.serve.limits import Limits


@pytest.fixture(scope="module")
def fake(by_path):
    return by_path("serve/http_fake")


@pytest.fixture(scope="module")
def tab(by_path, tmp_path_factory):
    chromium = by_path("chromium")
    path = chromium.find()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(chromium.NAMES)} is installed")
    with chromium.browser(path, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


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


def type_and_enter(tab, text, field="text"):
    tab.evaluate(f"document.getElementById('{field}').focus()")
    tab.call("Input.insertText", text=text)
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")


def complaints(tab):
    return tab.happened("Log.entryAdded") + tab.happened("Runtime.exceptionThrown")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_sentence_is_typed_and_its_label_seen(tab, fake, tmp_path, width, dark):
    with fake.running(fake.FakeService()) as address:
        visit(tab, f"http://{address}/", width=width, dark=dark)
        type_and_enter(tab, "a gripping <b>film</b>")
        until(tab, "!document.getElementById('answer').hidden")
        tab.screenshot(tmp_path / "page.png")
        assert tab.evaluate("document.getElementById('label').textContent") == "22"
        assert tab.evaluate("[...document.querySelectorAll('meter')].map(bar => bar.value)") == [0.75, 0.25]
        assert tab.evaluate("document.getElementById('model').textContent") == fake.NAME
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        asked = {event["request"]["url"] for event in tab.happened("Network.requestWillBeSent")}
        assert {url.split("/")[2] for url in asked} == {address}
        assert complaints(tab) == []


def test_what_is_wrong_is_said(tab, fake):
    with fake.running(fake.FakeService(limits=Limits(max_characters=5))) as address:
        visit(tab, f"http://{address}/")
        type_and_enter(tab, "too long")
        until(tab, "!document.getElementById('wrong').hidden")
        assert "too long" in tab.evaluate("document.getElementById('wrong').textContent")


def test_pairs_have_two_fields(tab, fake):
    with fake.running(fake.FakeService(texts=2)) as address:
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


def test_the_page_of_the_api_asks_for_nothing(tab, fake):
    with fake.running(fake.FakeService()) as address:
        visit(tab, f"http://{address}/docs")
        assert len(tab.happened("Network.requestWillBeSent")) == 1
        assert tab.evaluate("document.querySelectorAll('section').length") == 9
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert complaints(tab) == []


@pytest.mark.parametrize("page", [pages.load("page.html"), pages.docs(openapi.document(Limits()))], ids=["try", "docs"])
def test_pages_name_no_other_host_and_nothing_unlisted_runs(page):
    assert not re.search(rb"(?:src|href)=\"(?!/|data:)|https?://|\son\w+=|style=\"", page.body)
    policy = dict(page.headers)[b"content-security-policy"]
    assert b"default-src 'none'" in policy
    assert b"unsafe" not in policy
