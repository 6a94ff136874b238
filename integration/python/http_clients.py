"""What several client libraries see through groove-http."""

import asyncio
import os
import socket

import aiohttp
import h11
import httpx
import pytest
import requests
import websockets

ADDRESS = os.environ["GROOVE_ADDRESS"]
HOST, PORT = ADDRESS.rsplit(":", 1)
URL = f"http://{ADDRESS}"
NEW = {"Host": "new.test"}
OLD = {"Host": "old.test"}


def test_requests_keeps_its_connection():
    with requests.Session() as session:
        for index in range(50):
            answer = session.get(f"{URL}/a?b={index}", headers=NEW).json()
            assert answer["path"] == f"/a?b={index}"
        assert answer["headers"]["X-Forwarded-Host"] == "new.test"


def test_requests_posts_a_length_and_chunks():
    body = os.urandom(300_000)
    assert requests.post(f"{URL}/echo", data=body, headers=NEW).content == body
    parts = (body[at : at + 7_000] for at in range(0, len(body), 7_000))
    assert requests.post(f"{URL}/echo", data=parts, headers=NEW).content == body


def test_requests_before_an_http10_app():
    with requests.Session() as session:
        for index in range(10):
            assert session.get(f"{URL}/{index}", headers=OLD).text == f"old and good: /{index}"
            assert session.post(URL, data="x" * index, headers=OLD).text == "x" * index


def test_requests_reads_a_stream():
    answer = requests.get(f"{URL}/stream", headers=NEW, stream=True)
    assert list(answer.iter_lines()) == [b"line %d" % index for index in range(100)]


def test_requests_sees_clear_errors():
    answer = requests.get(URL, headers={"Host": "nobody.test", "Accept": "application/json"})
    assert answer.status_code == 404
    assert "nobody.test" in answer.json()["error"]


def test_httpx_and_head():
    with httpx.Client(base_url=URL, headers=NEW) as client:
        assert client.get("/x").json()["path"] == "/x"
        answer = client.head("/x")
        assert answer.status_code == 200 and answer.content == b"" and int(answer.headers["content-length"]) > 0
        assert client.post("/echo", content=b"y" * 5000).content == b"y" * 5000


@pytest.mark.asyncio
async def test_aiohttp_many_at_once():
    async with aiohttp.ClientSession(headers=NEW) as session:

        async def ask(index):
            async with session.post(f"{URL}/echo", data=b"%d" % index * 1000) as answer:
                assert await answer.read() == b"%d" % index * 1000

        await asyncio.gather(*(ask(index) for index in range(200)))


@pytest.mark.asyncio
async def test_aiohttp_expect_continue():
    async with aiohttp.ClientSession(headers=NEW) as session:
        async with session.post(f"{URL}/echo", data=b"z" * 100_000, expect100=True) as answer:
            assert await answer.read() == b"z" * 100_000


@pytest.mark.asyncio
async def test_websockets():
    uri = "ws://new.test/ws"
    async with websockets.connect(uri, host=HOST, port=int(PORT)) as talk:
        for word in ["one", "two", "three"]:
            await talk.send(word)
            assert await talk.recv() == word.upper()
        block = os.urandom(500_000)
        await talk.send(block)
        assert await talk.recv() == block


@pytest.mark.asyncio
async def test_aiohttp_websockets_many_at_once():
    async with aiohttp.ClientSession(headers=NEW) as session:

        async def talk(index):
            async with session.ws_connect(f"{URL}/ws") as connection:
                for turn in range(20):
                    await connection.send_str(f"a{index}-{turn}")
                    assert await connection.receive_str() == f"A{index}-{turn}"

        await asyncio.gather(*(talk(index) for index in range(50)))


def test_h11_agrees_on_every_event():
    """h11 is a strict reader: it takes what we relay, to the last trailer."""
    connection = h11.Connection(h11.CLIENT)
    with socket.create_connection((HOST, int(PORT))) as link:
        for turn in range(3):
            link.sendall(connection.send(h11.Request(method="GET", target="/stream", headers=[("Host", "new.test")])))
            link.sendall(connection.send(h11.EndOfMessage()))
            data, done = b"", False
            while not done:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(link.recv(4096))
                elif isinstance(event, h11.Response):
                    assert event.status_code == 200
                elif isinstance(event, h11.Data):
                    data += event.data
                elif isinstance(event, h11.EndOfMessage):
                    done = True
            assert data.count(b"\n") == 100
            connection.start_next_cycle()
