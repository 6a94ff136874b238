"""People who log in with a real browser at a real OpenID provider, on another site than the app."""

import json
import re

from conftest import PROVIDER, eventually, plain, secure

COOKIE = "__Host-groove_session"


def say_who(page, name="ann"):
    """Fills in the provider's first form: who it is."""
    page.locator("input[name=login]").fill(name)
    page.locator("input[name=password]").fill("any")
    page.locator("button[type=submit]").click()


def let_it_know(page):
    """Its second, which it shows once: that the app may know."""
    page.locator("input[name=prompt][value=consent]").wait_for(state="attached")
    page.locator("button[type=submit]").click()


def asked_to_log_in(page):
    return page.url.startswith(f"{PROVIDER}/") and page.locator("input[name=login]").count() == 1


def log_in(page, url, name="ann"):
    page.goto(url)
    assert asked_to_log_in(page), page.url
    say_who(page, name)
    let_it_know(page)


def seen(page):
    """What the app was told."""
    page.locator("pre").wait_for()
    return json.loads(page.locator("pre").inner_text())


def session(context):
    return next((cookie for cookie in context.cookies() if cookie["name"] == COOKIE), None)


def forget_the_provider(context):
    context.clear_cookies(domain="127.0.0.1")


class Visits:
    """Navigations to the provider."""

    def __init__(self, page):
        self.count = 0
        page.on("request", self.note)

    def note(self, request):
        self.count += request.url.startswith(f"{PROVIDER}/auth?")


def test_a_login_ends_on_the_page_that_was_asked_for(page):
    log_in(page, secure("club.test", "/a?b=c"))
    page.wait_for_url(secure("club.test", "/a?b=c"))
    told = seen(page)
    assert (told["target"], told["x-auth-user"], told["x-auth-method"]) == ("/a?b=c", "ann", "oidc")
    assert (told["x-auth-email"], told["x-auth-groups"]) == ("ann@example.test", "ops,dev")
    assert "groove_session" not in told.get("cookie", "")
    kept = session(page.context)
    assert kept["secure"] and kept["httpOnly"] and kept["sameSite"] == "Lax" and kept["path"] == "/"
    assert [cookie["name"] for cookie in page.context.cookies(secure("club.test"))] == [COOKIE], "nothing is left of the login"
    assert page.evaluate("document.cookie") == "", "no script can read it"
    # A page's own requests are known by it too; one from elsewhere is not.
    assert page.evaluate("async () => (await fetch('/who')).status") == 200
    page.goto(secure("page.test"))
    status = page.evaluate("async url => { try { return (await fetch(url, {credentials: 'include'})).status } catch { return 0 } }", secure("club.test", "/who"))
    assert status == 0
    # A link from elsewhere finds its reader logged in.
    page.evaluate("url => { location = url }", secure("club.test", "/linked"))
    page.wait_for_url(secure("club.test", "/linked"))
    assert seen(page)["x-auth-user"] == "ann"


def test_who_comes_without_tls_is_sent_to_it_first(page):
    log_in(page, plain("club.test", "/a?b"))
    page.wait_for_url(secure("club.test", "/a?b"))
    assert seen(page)["x-auth-user"] == "ann" and seen(page)["x-forwarded-proto"] == "https"


def test_two_tabs_log_in_at_the_same_time(profiles):
    context = profiles()
    one, two = context.new_page(), context.new_page()
    one.goto(secure("club.test", "/one"))
    two.goto(secure("club.test", "/two"))
    say_who(one)
    let_it_know(one)
    one.wait_for_url(secure("club.test", "/one"))
    # What the first has left of its login does not disturb the second.
    say_who(two)
    two.wait_for_url(secure("club.test", "/two"))
    assert seen(two)["x-auth-user"] == "ann"


def test_who_may_not_come_in_reads_why(page):
    log_in(page, secure("club.test", "/a"), "bob")
    page.wait_for_url(re.compile(re.escape(secure("club.test", "/oauth2/callback"))))
    assert "You may not do this." in page.locator("main").inner_text()
    assert session(page.context) is None


def test_a_logout_ends_it_here_and_at_the_provider(page):
    log_in(page, secure("club.test"))
    page.wait_for_url(secure("club.test"))
    page.get_by_role("link", name="Log out").click()
    page.wait_for_url(re.compile(re.escape(f"{PROVIDER}/session/end")))
    assert session(page.context) is None
    page.locator("button[name=logout]").click()
    # Back at the app, which knows nobody any more, and so is the provider.
    page.locator("input[name=login]").wait_for()
    assert asked_to_log_in(page)
    page.goto(secure("club.test"))
    assert asked_to_log_in(page)


def test_another_site_logs_nobody_out(page):
    log_in(page, secure("club.test"))
    page.wait_for_url(secure("club.test"))
    page.goto(secure("page.test"))
    with page.expect_navigation():
        page.evaluate("url => { location = url }", secure("club.test", "/oauth2/logout"))
    assert page.locator("dd", has_text="403").count() == 1
    assert session(page.context)


def test_a_session_that_is_over_is_begun_anew(page):
    log_in(page, secure("brief.test", "/x"))
    page.wait_for_url(secure("brief.test", "/x"))
    kept, visits = session(page.context), Visits(page)

    def expired():
        page.goto(secure("brief.test", "/x"))
        return visits.count

    # The provider still knows who it is: nobody is asked anything.
    eventually("the session ends", expired)
    page.wait_for_url(secure("brief.test", "/x"))
    assert seen(page)["x-auth-user"] == "ann"
    assert session(page.context)["value"] != kept["value"]
    # A browser that keeps the old cookie past its time gains nothing.
    page.context.clear_cookies()
    page.context.add_cookies([{key: value for key, value in kept.items() if key != "expires"}])
    page.goto(secure("brief.test", "/x"))
    assert asked_to_log_in(page)


def test_a_cookie_that_was_touched_is_no_login(page):
    log_in(page, secure("club.test", "/x"))
    page.wait_for_url(secure("club.test", "/x"))
    kept = session(page.context)
    value = kept["value"]
    for bad in [value[:40] + ("A" if value[40] != "A" else "B") + value[41:], value[:-4], "x"]:
        forget_the_provider(page.context)
        page.context.add_cookies([{**kept, "value": bad}])
        page.goto(secure("club.test", "/x"))
        assert asked_to_log_in(page), bad
    page.context.add_cookies([kept])
    page.goto(secure("club.test", "/x"))
    assert seen(page)["x-auth-user"] == "ann", "the one that was not is one"
