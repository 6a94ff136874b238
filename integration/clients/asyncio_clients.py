"""emcache, aiomcache or meta-memcache (named by CLIENT) against what MEMCACHED names: a line for each step, its
name and what came back."""

import asyncio
import os

HOST, PORT = os.environ["MEMCACHED"].rsplit(":", 1)


async def step(name, asked):
    try:
        told = await asked if hasattr(asked, "__await__") else asked()
    except Exception as error:  # noqa: BLE001: whatever it is, it is an outcome
        told = f"{type(error).__name__}: {error}".replace(f"{HOST}:{PORT}", "SERVER")
    print(f"{name}\t{told!r}")
    return told


def plain(item):
    """An item of emcache without its token."""
    return item if item is None else (item.value, item.flags)


async def with_emcache():
    import emcache

    client = await emcache.create_client([emcache.MemcachedHostAddress(HOST, int(PORT))], timeout=10.0)

    async def item(asked):
        return plain(await asked)

    await step("flush", client.flush_all(emcache.MemcachedHostAddress(HOST, int(PORT))))
    await step("get nothing", item(client.get(b"a")))
    await step("set", client.set(b"a", b"1", flags=7, exptime=100))
    await step("get", item(client.get(b"a", return_flags=True)))
    await step("add over", client.add(b"a", b"2"))
    await step("add", client.add(b"b", b"2"))
    await step("replace nothing", client.replace(b"c", b"3"))
    await step("replace", client.replace(b"b", b"3"))
    await step("append", client.append(b"b", b">"))
    await step("prepend", client.prepend(b"b", b"<"))
    await step("append to nothing", client.append(b"none", b"x"))
    await step("get appended", item(client.get(b"b")))
    token = (await client.gets(b"b")).cas
    await step("cas", client.cas(b"b", b"swapped", token))
    await step("cas again", client.cas(b"b", b"wrong", token))
    await step("cas of nothing", client.cas(b"none", b"wrong", token))
    await step("set a number", client.set(b"n", b"5"))
    await step("increment", client.increment(b"n", 3))
    await step("decrement", client.decrement(b"n", 100))
    await step("increment nothing", client.increment(b"none", 1))
    await step("increment a text", client.increment(b"b", 1))
    await step("touch", client.touch(b"b", 100))
    await step("touch nothing", client.touch(b"none", 100))
    await step("gat", item(client.gat(100, b"b")))
    await step("gats nothing", item(client.gats(100, b"none")))
    await step("noreply", client.set(b"quiet", b"shh", noreply=True))
    await step("get quiet", item(client.get(b"quiet")))
    keys = [b"many%d" % number for number in range(200)]
    await asyncio.gather(*(client.set(key, key * 3) for key in keys))

    async def many(asked):
        return sorted((key, value.value) for key, value in (await asked).items())

    await step("get many", many(client.get_many([*keys, b"none"])))
    await step("gets many", many(client.gets_many(keys[:50])))
    await step("delete", client.delete(b"a"))
    await step("delete nothing", client.delete(b"a"))
    await step("large", client.set(b"large", b"x" * 1_000_000))
    await step("get large", item(client.get(b"large")))
    await step("too large", client.set(b"large", b"x" * 1_100_000))
    await step("a long key", client.set(b"k" * 251, b"x"))
    await step("binary", client.set(b"bytes", bytes(range(256))))
    await step("get binary", item(client.get(b"bytes")))
    await client.close()


async def with_aiomcache():
    import aiomcache

    client = aiomcache.Client(HOST, int(PORT), pool_size=4)
    await step("flush", client.flush_all())
    await step("get nothing", client.get(b"a"))
    await step("set", client.set(b"a", b"1", exptime=100))
    await step("get", client.get(b"a"))
    await step("add over", client.add(b"a", b"2"))
    await step("add", client.add(b"b", b"2"))
    await step("replace nothing", client.replace(b"c", b"3"))
    await step("replace", client.replace(b"b", b"3"))
    await step("append", client.append(b"b", b">"))
    await step("prepend", client.prepend(b"b", b"<"))
    await step("append to nothing", client.append(b"none", b"x"))
    await step("get appended", client.get(b"b"))
    token = (await client.gets(b"b"))[1]
    await step("cas", client.cas(b"b", b"swapped", token))
    await step("cas again", client.cas(b"b", b"wrong", token))
    await step("set a number", client.set(b"n", b"5"))
    await step("incr", client.incr(b"n", 3))
    await step("decr", client.decr(b"n", 100))
    await step("incr nothing", client.incr(b"none"))
    await step("incr a text", client.incr(b"b"))
    await step("touch", client.touch(b"b", 100))
    await step("touch nothing", client.touch(b"none", 100))
    keys = [b"many%d" % number for number in range(200)]
    await asyncio.gather(*(client.set(key, key * 3) for key in keys))
    await step("get many", client.multi_get(*keys, b"none"))
    await step("delete", client.delete(b"a"))
    await step("delete nothing", client.delete(b"a"))
    await step("large", client.set(b"large", b"x" * 1_000_000))
    await step("get large", client.get(b"large"))
    await step("a long key", client.set(b"k" * 251, b"x"))
    await step("binary", client.set(b"bytes", bytes(range(256))))
    await step("get binary", client.get(b"bytes"))

    async def names():
        return b"curr_items" in await client.stats()

    await step("stats", names())
    await client.close()


async def with_meta_memcache():
    from meta_memcache import CacheClient, Key, ServerAddress, connection_pool_factory_builder
    from meta_memcache.configuration import LeasePolicy, RecachePolicy, StalePolicy
    from meta_memcache.protocol import SetMode

    cache = CacheClient.cache_client_from_servers(
        servers=[ServerAddress(HOST, int(PORT))],
        connection_pool_factory_fn=connection_pool_factory_builder(),
    )
    await step("get nothing", lambda: cache.get("a"))
    await step("set", lambda: cache.set("a", "1", ttl=100))
    await step("get", lambda: cache.get("a"))
    await step("an object", lambda: cache.set("object", {"list": [1, None], "text": "é"}, ttl=100))
    await step("get an object", lambda: cache.get("object"))
    await step("add over", lambda: cache.set("a", "2", ttl=100, set_mode=SetMode.ADD))
    await step("add", lambda: cache.set("b", "2", ttl=100, set_mode=SetMode.ADD))
    await step("replace nothing", lambda: cache.set("c", "3", ttl=100, set_mode=SetMode.REPLACE))
    await step("append to nothing", lambda: cache.set("c", b"3", ttl=100, set_mode=SetMode.APPEND))
    value, token = cache.get_cas("b")
    await step("get_cas", lambda: value)
    await step("cas", lambda: cache.set("b", "3", ttl=100, cas_token=token))
    await step("cas again", lambda: cache.set("b", "4", ttl=100, cas_token=token))
    await step("no reply", lambda: cache.set("quiet", "shh", ttl=100, no_reply=True))
    await step("get quiet", lambda: cache.get("quiet"))
    await step("delta with a start", lambda: cache.delta_initialize_and_get("n", 2, 10, 100))
    await step("delta", lambda: cache.delta_and_get("n", 5))
    await step("delta down", lambda: cache.delta_and_get("n", -100))
    await step("delta of nothing", lambda: cache.delta_and_get("none", 1))
    await step("blind delta", lambda: cache.delta("n", 7))
    await step("blind delta with a start", lambda: cache.delta_initialize("m", 7, 3, 100))
    await step("touch", lambda: cache.touch("b", 100))
    await step("touch nothing", lambda: cache.touch("none", 100))
    await step("get and touch", lambda: cache.get("b", touch_ttl=100))
    lease = LeasePolicy(ttl=30, miss_retries=2, miss_retry_wait=0.01)
    await step("lease: the winner", lambda: cache.get_or_lease("leased", lease))
    await step("lease: the next", lambda: cache.get_or_lease("leased", lease))
    await step("lease: filled", lambda: cache.set("leased", "x", ttl=100))
    await step("lease: found", lambda: cache.get_or_lease("leased", lease))
    recache = RecachePolicy(ttl=200)
    await step("recache: won", lambda: cache.get("a", recache_policy=recache))
    await step("recache: the next", lambda: cache.get("a", recache_policy=recache))
    keys = [f"many{number}" for number in range(200)]
    for key in keys:
        cache.set(key, key * 3, ttl=100)
    many = cache.multi_get([*keys, "none"])
    await step("get many", lambda: sorted((key.key, value) for key, value in many.items()))
    await step("get many with tokens", lambda: len(cache.multi_get_cas(keys[:20])))
    await step("invalidate", lambda: cache.invalidate("a"))
    await step("invalidate as stale", lambda: cache.invalidate("b", stale_policy=StalePolicy(mark_stale_on_deletion_ttl=30)))
    await step("get stale", lambda: cache.get("b"))
    await step("delete", lambda: cache.delete("object"))
    await step("delete nothing", lambda: cache.delete("object"))
    await step("a long key", lambda: cache.set(Key("k" * 400), "long", ttl=100))
    await step("get by a long key", lambda: cache.get(Key("k" * 400)))
    await step("an unicode key", lambda: cache.set(Key("schlüssel"), "x", ttl=100))
    await step("get by an unicode key", lambda: cache.get(Key("schlüssel")))
    await step("large", lambda: cache.set("large", os.urandom(900_000).hex()[:900_000], ttl=100))
    await step("get large", lambda: len(cache.get("large") or ""))
    await step("touched twice", lambda: [cache.touch("quiet", 100), cache.touch("quiet", 100)])


asyncio.run(
    {"emcache": with_emcache, "aiomcache": with_aiomcache, "meta-memcache": with_meta_memcache}[os.environ["CLIENT"]]()
)
