"""The app behind the proxy that a browser is driven through: `app.py PORT NAME`."""

import asyncio
import hashlib
import html
import json
import sys

from aiohttp import WSMsgType, web

NAME = sys.argv[2]
PART = bytes(range(256)) * 256
PAGE = """<!doctype html>
<html lang="en"><title>The shop</title><link rel="icon" href="data:,">
<h1>The shop</h1><pre>{seen}</pre><a href="/oauth2/logout">Log out</a>
"""


SEEN = web.AppKey("seen", asyncio.Event)


async def page(request):
    seen = {"target": request.path_qs, **{name.lower(): value for name, value in request.headers.items()}}
    return web.Response(text=PAGE.format(seen=html.escape(json.dumps(seen))), content_type="text/html")


async def who(request):
    return web.json_response({"name": NAME, "method": request.method}, headers={"X-Who": NAME})


async def talk(request):
    socket = web.WebSocketResponse(max_msg_size=1 << 24, protocols=["chat"])
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.data == "leave":
            await socket.close(code=4001, message=b"as you like")
        else:
            await socket.send_str(message.data.upper())
    return socket


async def events(request):
    """Each event waits for a word of the page's, which has to have seen the one before."""
    seen = request.app[SEEN]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    for number in range(3):
        await response.write(b"id: %d\ndata: event %d\n\n" % (number, number))
        await seen.wait()
        seen.clear()
    return response


async def go_on(request):
    request.app[SEEN].set()
    return web.Response()


async def upload(request):
    digest, count = hashlib.sha256(), 0
    async for part in request.content.iter_any():
        digest.update(part)
        count += len(part)
    return web.json_response({"bytes": count, "digest": digest.hexdigest()})


async def download(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(int(request.query["parts"])):
        await response.write(PART)
    return response


async def hang(_):
    await asyncio.Event().wait()


async def drop(request):
    request.transport.abort()
    return web.Response()


app = web.Application(client_max_size=1 << 28)
app[SEEN] = asyncio.Event()
app.add_routes(
    [
        web.get("/ws", talk),
        web.get("/events", events),
        web.post("/events/next", go_on),
        web.post("/upload", upload),
        web.get("/download", download),
        web.get("/hang", hang),
        web.get("/api/hang", hang),
        web.get("/drop", drop),
        web.get("/api/drop", drop),
        web.route("*", "/who", who),
        web.route("*", "/api/who", who),
        web.get("/{path:.*}", page),
    ]
)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
