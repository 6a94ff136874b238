"""An app on aiohttp: keep-alive, chunks, uploads, WebSockets."""

import sys

from aiohttp import WSMsgType, web


async def hello(request):
    return web.json_response({"path": request.path_qs, "headers": dict(request.headers)})


async def echo(request):
    return web.Response(body=await request.read())


async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for index in range(100):
        await response.write(b"line %d\n" % index)
    return response


async def talk(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


app = web.Application(client_max_size=1 << 28)
app.add_routes([web.get("/stream", stream), web.get("/ws", talk), web.post("/echo", echo), web.get("/{path:.*}", hello)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
