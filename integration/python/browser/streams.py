"""What a page does with a connection: WebSockets, streams, other origins, cookies, much at once, and a proxy that changes."""

import os

import pytest
from conftest import eventually, plain, secure

SOCKET = """async ([url, size]) => {
    const socket = new WebSocket(url, ['chat'])
    socket.binaryType = 'arraybuffer'
    const heard = () => new Promise((good, bad) => { socket.onmessage = it => good(it.data); socket.onerror = socket.onclose = bad })
    await new Promise((good, bad) => { socket.onopen = good; socket.onerror = socket.onclose = bad })
    let answer = heard()
    socket.send('hello')
    const text = await answer
    answer = heard()
    socket.send(new Uint8Array(size).map((_, index) => index % 251))
    const bytes = new Uint8Array(await answer)
    const same = bytes.length == size && bytes.every((byte, index) => byte == index % 251)
    const closed = new Promise(good => { socket.onclose = good })
    socket.onerror = null
    socket.send('leave')
    const {code, reason, wasClean} = await closed
    return {text, same, protocol: socket.protocol, code, reason, wasClean}
}"""
TALKED = {"text": "HELLO", "same": True, "protocol": "chat", "code": 4001, "reason": "as you like", "wasClean": True}

# What version the browser itself says the last request for this had.
VERSION = "path => performance.getEntriesByType('resource').filter(it => it.name.endsWith(path)).at(-1).nextHopProtocol"


@pytest.fixture
def shop(page):
    page.goto(secure("shop.test"))
    return page


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_websocket_over_http1(page, size):
    page.goto(plain("shop.test"))
    assert page.evaluate(SOCKET, [plain("shop.test", "/ws?plain").replace("http", "ws"), size]) == TALKED


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_websocket_over_tls_goes_with_the_page_s_http2(shop, size):
    """That it does is for the proxy's log to say."""
    assert shop.evaluate(SOCKET, [secure("shop.test", "/ws?secure").replace("https", "wss"), size]) == TALKED


def test_a_websocket_that_is_refused_fails_at_once(shop):
    closed = """url => new Promise(good => { new WebSocket(url).onclose = it => good(it.code) })"""
    for url in [secure("closed.test", "/ws"), secure("shop.test", "/drop")]:
        assert shop.evaluate(closed, url.replace("https", "wss")) == 1006


FETCH = """async ([url, options]) => {
    try {
        const it = await fetch(url, options)
        return [it.status, it.headers.get('x-who'), it.headers.get('x-groove-code'), await it.text()]
    } catch (error) {
        return error.name
    }
}"""


def test_other_origins_may_do_what_they_are_allowed(page):
    preflights = []
    page.on("request", lambda request: preflights.append(request.url) if request.method == "OPTIONS" else None)
    put = {"method": "PUT", "body": "{}", "headers": {"Content-Type": "application/json", "X-Team": "a"}, "credentials": "include"}
    api = secure("shop.test", "/api/who")
    page.goto(secure("page.test"))
    status, who, _, body = page.evaluate(FETCH, [api, put])
    assert (status, who in ("one", "two")) == (200, True) and '"PUT"' in body
    # Without a preflight, too, and what is not exposed is not shown.
    assert page.evaluate(FETCH, [api, {}])[0] == 200
    for refused in [{"method": "DELETE"}, {**put, "headers": {"X-Other": "a"}}]:
        assert page.evaluate(FETCH, [api, refused]) == "TypeError", refused
    # Why there is no answer of the app's is for the same eyes.
    for path, code in [("/api/hang", "H12"), ("/api/drop", "H13"), ("/api/closed", "H80"), ("/api/asked", "H26")]:
        status, _, _, body = page.evaluate(FETCH, [secure("shop.test", path), {"headers": {"Accept": "application/json"}}])
        assert status >= 400 and f'"code":"{code}"' in body, (path, body)
    # A route that says nothing of it is for nobody else's eyes.
    assert page.evaluate(FETCH, [secure("shop.test", "/who"), {}]) == "TypeError"
    page.goto(secure("evil.test"))
    for url, options in [(api, put), (api, {}), (secure("shop.test", "/api/hang"), {})]:
        assert page.evaluate(FETCH, [url, options]) == "TypeError"
    # The apps' pages see all of their own.
    page.goto(secure("shop.test"))
    assert page.evaluate(FETCH, [api, put])[0] == 200


def test_a_session_stays_with_its_server(profiles):
    names = set()
    for _ in range(8):
        context = profiles()
        page = context.new_page()
        page.goto(secure("shop.test"))
        who = "async () => (await (await fetch('/who')).json()).name"
        first = page.evaluate(who)
        assert {page.evaluate(who) for _ in range(4)} == {first}
        [cookie] = context.cookies()
        assert cookie["name"] == "where" and cookie["secure"] and cookie["httpOnly"] and page.evaluate("document.cookie") == ""
        names.add(first)
        # Another tab of the same person, over another scheme or not, is the same session.
        other = context.new_page()
        other.goto(secure("shop.test"))
        assert other.evaluate(who) == first
        if len(names) == 2:
            return
    raise AssertionError("all sessions are at one server")


def test_events_come_one_by_one(shop):
    """The app sends one only once the page has seen the one before: nothing is held back."""
    seen = shop.evaluate("""() => new Promise((good, bad) => {
        const events = new EventSource('/events'), seen = []
        events.onerror = () => bad('the stream broke')
        events.onmessage = async it => {
            seen.push(`${it.lastEventId} ${it.data}`)
            if (seen.length == 3) { events.close(); good(seen) }
            else await fetch('/events/next', {method: 'POST'})
        }
    })""")
    assert seen == ["0 event 0", "1 event 1", "2 event 2"]


def test_much_goes_up_and_down_at_once_over_http2(shop):
    sent, got = shop.evaluate("""async () => {
        const size = 16 << 20, body = new Uint8Array(size)
        for (let at = 0; at < size; at += 65536) body.fill(at / 65536 % 256, at, at + 65536)
        const hex = async it => [...new Uint8Array(await crypto.subtle.digest('SHA-256', it))].map(it => it.toString(16).padStart(2, '0')).join('')
        const up = fetch('/upload', {method: 'POST', body}).then(it => it.json())
        const down = fetch('/download?parts=256').then(it => it.arrayBuffer())
        const small = Array.from({length: 50}, (_, index) => fetch(`/who?${index}`).then(it => it.status))
        const [sent, got] = await Promise.all([up, down, ...small])
        return [[sent.bytes, sent.digest == await hex(body)], [got.byteLength, new Uint8Array(got).every((it, at) => it == at % 256)]]
    }""")
    assert sent == [16 << 20, True] and got == [16 << 20, True]
    assert shop.evaluate(VERSION, "/download?parts=256") == "h2"


def test_a_download_that_is_given_up_leaves_the_connection(shop):
    shop.evaluate("""async () => {
        const stop = new AbortController(), it = await fetch('/download?parts=4096', {signal: stop.signal})
        await it.body.getReader().read()
        stop.abort()
    }""")
    assert shop.evaluate("async () => (await (await fetch('/who')).json()).method") == "GET"
    assert shop.evaluate(VERSION, "/who") == "h2"


def rewrite(change):
    path = os.environ["GROOVE_CONFIG"]
    with open(path) as file:
        text = file.read()
    with open(f"{path}.new", "w") as file:
        file.write(change(text))
    os.replace(f"{path}.new", path)
    return text


def test_a_page_that_is_open_outlives_a_reload(shop):
    shop.evaluate("""async url => {
        window.socket = new WebSocket(url)
        await new Promise((good, bad) => { socket.onopen = good; socket.onerror = bad })
        window.say = it => new Promise((good, bad) => { socket.onmessage = it => good(it.data); socket.onclose = bad; socket.send(it) })
    }""", secure("shop.test", "/ws?stays").replace("https", "wss"))
    version = "async () => (await fetch('/stays')).headers.get('x-release')"
    assert shop.evaluate("say('a')") == "A" and shop.evaluate(version) == "one"
    before = rewrite(lambda text: text.replace("X-Release: one", "X-Release: two"))
    try:
        eventually("the reload", lambda: shop.evaluate(version) == "two")
        assert shop.evaluate("say('b')") == "B"
        # One that closes the app lets nobody new in, and what is open goes on.
        rewrite(lambda text: text.replace("{enabled: false}", "{enabled: true}"))
        status = "async () => (await fetch('/stays')).status"
        eventually("the app is closed", lambda: shop.evaluate(status) == 503)
        assert shop.evaluate("say('c')") == "C"
        assert shop.reload().status == 503 and shop.title() == "Maintenance mode"
    finally:
        rewrite(lambda _: before)
    eventually("it is open again", lambda: shop.goto(secure("shop.test")).status == 200)
