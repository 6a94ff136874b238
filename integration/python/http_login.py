"""People who log in at a real OpenID provider, driven as a browser would be: redirects, cookies, forms."""

import concurrent.futures
import os
import re
import subprocess
import threading
import time
import urllib.parse

import pytest
import requests

URL = f"http://{os.environ['GROOVE_ADDRESS']}"
PORT = os.environ["PROVIDER_PORT"]
FOLDER = os.environ["PROVIDER_FOLDER"]
PROVIDER = f"http://127.0.0.1:{PORT}"
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
PATIENCE = 30
SECONDS = 4


class Provider:
    """The provider's process, and what it says."""

    def __init__(self):
        self.lines, self.process = [], None

    def start(self):
        command = ["node", "oidc_provider.mjs", PORT, URL]
        environment = os.environ | {"ID_TOKEN_SECONDS": str(SECONDS)}
        self.process = subprocess.Popen(command, cwd=FOLDER, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "listening\n"
        threading.Thread(target=lambda out: self.lines.extend(out), args=[self.process.stdout], daemon=True).start()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def grant_errors(self):
        return sum(line.startswith("grant error") for line in self.lines)

    def refreshes(self):
        return sum(line.startswith("refreshed") for line in self.lines)


def eventually(what, seen):
    deadline = time.monotonic() + PATIENCE
    while not (found := seen()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def go(browser, url=f"{URL}/", **options):
    return browser.get(url, headers=BROWSER, allow_redirects=False, timeout=PATIENCE, **options)


def log_in(browser, url, name):
    """Follows redirects and fills in forms until the app answers."""
    answer = go(browser, url)
    for _ in range(20):
        if answer.is_redirect:
            answer = go(browser, urllib.parse.urljoin(answer.url, answer.headers["Location"]))
        elif form := re.search(r'<form[^>]* action="([^"]*)"', answer.text):
            prompt = re.search(r'name="prompt" value="([^"]*)"', answer.text)[1]
            fields = {"prompt": prompt} | ({"login": name, "password": "any"} if prompt == "login" else {})
            where = urllib.parse.urljoin(answer.url, form[1])
            answer = browser.post(where, fields, headers=BROWSER, allow_redirects=False, timeout=PATIENCE)
        else:
            return answer
    raise AssertionError("going round in circles")


@pytest.fixture(scope="module")
def provider():
    provider = Provider()
    # It is not there yet: nobody can be sent to it.
    answer = go(requests.Session())
    assert answer.status_code == 503, answer.text
    provider.start()
    eventually("the provider is found", lambda: go(requests.Session()).status_code == 302)
    yield provider
    if provider.process:
        provider.stop()
    print("".join(provider.lines))


def test_a_program_is_told_and_a_person_is_sent_to_log_in(provider):
    assert requests.get(URL, timeout=PATIENCE).status_code == 401
    assert requests.post(URL, headers=BROWSER, timeout=PATIENCE).status_code == 401
    answer = go(requests.Session(), f"{URL}/a?b=c")
    where = urllib.parse.urlsplit(answer.headers["Location"])
    asked = dict(urllib.parse.parse_qsl(where.query))
    assert f"{where.scheme}://{where.netloc}" == PROVIDER
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["redirect_uri"] == f"{URL}/oauth2/callback" and len(asked["state"]) == len(asked["nonce"]) == 43
    assert "openid" in asked["scope"].split()
    cookie = answer.headers["Set-Cookie"]
    assert all(word in cookie for word in ["HttpOnly", "SameSite=Lax", "Path=/"]) and asked["state"] not in cookie


def test_a_login_from_end_to_end(provider):
    browser = requests.Session()
    browser.cookies.set("theirs", "1")
    answer = log_in(browser, f"{URL}/a?b=c", "ann")
    assert answer.status_code == 200, answer.text
    seen = answer.json()
    assert (seen[":target"], seen["x-auth-user"], seen["x-auth-method"]) == ("/a?b=c", "ann", "oidc")
    assert (seen["x-auth-email"], seen["x-auth-groups"]) == ("ann@example.test", "ops,dev")
    # What this proxy keeps for itself is not for the app.
    assert "groove_session" not in seen["cookie"] and "theirs=1" in seen["cookie"]
    kept = [cookie for cookie in browser.cookies if cookie.name.startswith("groove_session")]
    assert [cookie.name for cookie in kept] == ["groove_session"], "the cookie of the login has gone"
    assert "ann" not in kept[0].value and len(kept[0].value) < 4000
    forged = browser.get(URL, headers=BROWSER | {"X-Auth-User": "root", "X-Auth-Email": "root@example.test"}, timeout=PATIENCE)
    assert (forged.json()["x-auth-user"], forged.json()["x-auth-email"]) == ("ann", "ann@example.test")


def test_who_is_known_may_still_not_be_let_in(provider):
    answer = log_in(requests.Session(), URL, "bob")
    assert answer.status_code == 403, answer.text


def test_nobody_is_sent_elsewhere(provider):
    browser = requests.Session()
    # requests would not ask for such a path by itself.
    request = requests.Request("GET", URL, headers=BROWSER).prepare()
    request.url = f"{URL}//evil.test/x"
    answer = browser.send(request, allow_redirects=False, timeout=PATIENCE)
    answer = log_in(browser, answer.headers["Location"], "ann")
    assert answer.status_code == 200 and answer.json()[":target"] == "/"


def test_an_answer_is_only_taken_by_whoever_asked(provider):
    victim, attacker = requests.Session(), requests.Session()
    state = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(go(attacker).headers["Location"]).query))["state"]
    for query in [{"code": "x", "state": state}, {"code": "x"}, {"code": "x", "state": "x"}, {}]:
        answer = go(victim, f"{URL}/oauth2/callback", params=query)
        assert answer.status_code == 403 and not victim.cookies, query
    # A state that only begins like the one that was given: the provider is not even asked.
    known = provider.grant_errors()
    like = {"code": "x", "state": state[:8] + "x" * 35}
    assert go(attacker, f"{URL}/oauth2/callback", params=like).status_code == 403
    # Of whom it is: the code is not good, and neither is another provider's answer.
    assert go(attacker, f"{URL}/oauth2/callback", params={"code": "x", "state": state}).status_code == 403
    assert eventually("the provider tells", lambda: provider.grant_errors() - known) == 1
    other = {"code": "x", "state": state, "iss": "https://other.test"}
    assert go(attacker, f"{URL}/oauth2/callback", params=other).status_code == 403


def test_a_cookie_that_was_touched_is_no_login(provider):
    browser = requests.Session()
    log_in(browser, URL, "ann")
    value = browser.cookies["groove_session"]
    for bad in [value[:-5], "x" + value[1:], value[:40] + "AAAA" + value[44:], "", "x"]:
        answer = requests.get(URL, headers=BROWSER, cookies={"groove_session": bad}, allow_redirects=False, timeout=PATIENCE)
        assert answer.status_code == 302, bad


def test_tokens_are_refreshed_once_for_all_who_come_with_the_same(provider):
    browser = requests.Session()
    log_in(browser, URL, "ann")
    before = browser.cookies["groove_session"]
    known = provider.refreshes()

    def once(_):
        return requests.get(URL, headers=BROWSER, cookies={"groove_session": before}, allow_redirects=False, timeout=PATIENCE)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        def round():
            answers = list(pool.map(once, range(8)))
            assert {answer.status_code for answer in answers} == {200}
            return [answer for answer in answers if "Set-Cookie" in answer.headers]

        fresh = eventually("the token ends", round)
    after = fresh[0].cookies["groove_session"]
    assert after != before
    # A provider that rotates its refresh tokens would take the second for a thief's.
    assert eventually("the provider tells", provider.refreshes) == known + 1
    answer = requests.get(URL, headers=BROWSER, cookies={"groove_session": after}, timeout=PATIENCE)
    assert answer.json()["x-auth-email"] == "ann@example.test"


def test_a_provider_that_is_away_ends_no_login_before_its_time(provider):
    browser = requests.Session()
    assert log_in(browser, URL, "ann").status_code == 200
    provider.stop()
    assert go(browser).status_code == 200
    answer = eventually("the token ends", lambda: (it := go(browser)).status_code != 200 and [it])[0]
    assert answer.status_code == 503
    provider.start()
    # It has forgotten all: who was logged in is asked again, and nobody else is troubled.
    eventually("it is back", lambda: go(browser).status_code == 302)
    assert log_in(browser, URL, "ann").status_code == 200


def test_a_logout_ends_it_here_and_there(provider):
    browser = requests.Session()
    log_in(browser, URL, "ann")
    other = {"Sec-Fetch-Site": "cross-site"}
    assert browser.get(f"{URL}/oauth2/logout", headers=other, allow_redirects=False, timeout=PATIENCE).status_code == 403
    answer = go(browser, f"{URL}/oauth2/logout")
    assert answer.status_code == 302 and answer.headers["Location"].startswith(f"{PROVIDER}/session/end?")
    assert "groove_session" not in browser.cookies
    assert go(browser).status_code == 302
    assert go(browser, answer.headers["Location"]).status_code == 200
