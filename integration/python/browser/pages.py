"""The pages that people see when an app is closed or fails: what they say, and that they can be read."""

import os
import re

import pytest
from conftest import plain, secure

with open(os.environ["GROOVE_AXE"]) as file:
    AXE = file.read()

LONG = ".".join(["a" * 60] * 3) + ".test"
APPS = "This is the app's to mend."
FAILURES = [
    ("nobody.test", "/", 404, "H30", "No such app", "The request has to change."),
    (LONG, "/", 404, "H30", "No such app", "The request has to change."),
    ("off.test", "/", 503, "H14", "No server is running", APPS),
    ("down.test", "/", 502, "H21", "Server refused the connection", APPS),
    ("shop.test", "/hang", 504, "H12", "Request timeout", APPS),
    ("shop.test", "/drop", 502, "H13", "Connection closed without response", APPS),
    ("closed.test", "/", 503, "H80", "Maintenance mode", "Those who run the app have closed it for a while. Try again in 2 minutes."),
]


def is_bright(page):
    """Of text and ground, each whether it is nearly white (or else nearly black)."""
    colours = page.evaluate("() => { const it = getComputedStyle(document.documentElement); return [it.color, it.backgroundColor] }")
    channels = [[int(it) for it in re.findall(r"\d+", colour)] for colour in colours]
    assert all(max(it) < 32 or min(it) > 223 for it in channels), colours
    return [min(it) > 223 for it in channels]


def complaints(page):
    """What axe-core finds wrong for those who see, hear or move in other ways."""
    page.evaluate(AXE)
    found = page.evaluate("() => axe.run()")
    assert found["passes"], "nothing was looked at"
    return [(it["id"], it["help"], [node["html"] for node in it["nodes"]]) for it in found["violations"]]


def readable(page):
    """On a phone: as wide as the screen, not wider, in letters of a size to read."""
    assert page.evaluate("innerWidth") == 360, "the page is laid out for another screen"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "it has to be pushed sideways"
    assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('p')).fontSize)") >= 16


@pytest.mark.parametrize("host, path, status, code, title, whose", FAILURES)
def test_a_failure_says_what_happened_and_whose_it_is(profiles, host, path, status, code, title, whose):
    phone = profiles(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True, color_scheme="light")
    page, asked = phone.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(plain(host, path))
    assert (answer.status, answer.headers["x-groove-code"]) == (status, code)
    assert page.title() == title and page.locator("h1").all_inner_texts() == [title]
    assert page.locator("html").get_attribute("lang") == "en"
    text = page.locator("main").inner_text()
    assert whose in text and code in text and str(status) in text
    request_id = answer.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", request_id) and request_id in text
    assert [url for url in asked if not url.startswith("data:")] == [answer.url], "it stands for itself"
    readable(page)
    assert is_bright(page) == [False, True] and complaints(page) == []
    page.emulate_media(color_scheme="dark")
    assert is_bright(page) == [True, False], "white on black in the dark"
    assert complaints(page) == []


def test_an_app_shows_a_page_of_its_own(profiles):
    page = profiles(viewport={"width": 360, "height": 740}, is_mobile=True).new_page()
    answer = page.goto(secure("painted.test", "/a?b=<i>c</i>"))
    assert (answer.status, answer.headers["x-groove-code"], answer.headers["retry-after"]) == (503, "H80", "90")
    assert page.locator("h1").inner_text() == "We are working on it"
    text = page.locator("main").inner_text()
    assert "painted will be back. Try again in 90 seconds." in text and answer.headers["x-request-id"] in text
    readable(page)
    assert complaints(page) == []
    # Who fails otherwise still gets the proxy's own.
    page.goto(secure("nobody.test"))
    assert page.title() == "No such app"


def test_a_program_in_the_page_gets_what_it_reads(page):
    page.goto(plain("shop.test"))
    status, body = page.evaluate(
        "async () => { const it = await fetch('/hang', {headers: {Accept: 'application/json'}}); return [it.status, await it.json()] }"
    )
    assert (status, body["code"], body["owner"], body["app"]) == (504, "H12", "app", "shop")
    # What does not say what it reads gets a line.
    kind, text = page.evaluate("async () => { const it = await fetch('/hang'); return [it.headers.get('content-type'), await it.text()] }")
    assert kind == "text/plain; charset=utf-8" and text.endswith("(H12)\n")
