"""pylibmc (libmemcached) and aiomcache against whatever MEMCACHED names. Fails by assertion."""

import asyncio
import os

import aiomcache
import pylibmc

ADDRESS = os.environ["MEMCACHED"]
HOST, PORT = ADDRESS.rsplit(":", 1)


def with_pylibmc() -> None:
    client = pylibmc.Client([ADDRESS], behaviors={"tcp_nodelay": True, "cas": True})
    client.flush_all()
    many = {f"key{number}": {"number": number, "text": "x" * number} for number in range(200)}
    assert client.set_multi(many) == []
    assert client.get_multi(list(many) + ["missing"]) == many
    assert client.set("a", b"1") and client.add("a", b"2") is False and client.replace("a", b"3")
    assert client.append("a", b"4") and client.prepend("a", b"2") and client.get("a") == b"234"
    value, token = client.gets("a")
    assert value == b"234" and client.cas("a", b"new", token)
    assert client.cas("a", b"newer", token) is False
    assert client.set("count", 5) and client.incr("count", 3) == 8 and client.decr("count", 9) == 0
    assert client.touch("count", 100) and client.delete("count") and not client.delete("count")
    assert client.set("big", b"y" * 1_000_000) and client.get("big") == b"y" * 1_000_000
    ((_, numbers),) = client.get_stats()
    assert int(numbers["curr_items"]) >= 201, numbers


async def with_aiomcache() -> None:
    client = aiomcache.Client(HOST, int(PORT), pool_size=4)
    keys = [b"aio%d" % number for number in range(100)]
    await asyncio.gather(*(client.set(key, key, exptime=100) for key in keys))
    assert await client.multi_get(*keys, b"missing") == (*keys, None)
    value, token = await client.gets(keys[0])
    assert value == keys[0] and await client.cas(keys[0], b"new", token)
    assert await client.set(b"n", b"1") and await client.incr(b"n", 2) == 3
    assert await client.delete(b"n") and await client.get(b"n") is None
    assert (await client.version()).startswith(b"1.")
    await client.flush_all()
    assert await client.get(keys[0]) is None
    await client.close()


with_pylibmc()
asyncio.run(with_aiomcache())
