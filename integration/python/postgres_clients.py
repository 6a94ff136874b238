"""Client libraries of Python through groove-postgres, in transaction pooling over three connections."""

import asyncio
import os
import threading

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg_pool import ConnectionPool

ARGS = dict(host="127.0.0.1", port=int(os.environ["GROOVE_PORT"]), user="app", password="secret")
CLIENTS = 12


def connect(**kwargs):
    return psycopg.connect(**ARGS, dbname="shop", autocommit=True, **kwargs)


@pytest.fixture
def conn():
    with connect() as conn:
        yield conn


def test_many_threads_with_prepared_statements():
    wrong = []

    def work(base):
        with connect(prepare_threshold=1) as conn:
            for number in range(50):
                with conn.transaction():
                    found = conn.execute("select %s::int + %s::int", (base, number)).fetchone()[0]
                if found != base + number:
                    wrong.append((base, number, found))

    threads = [threading.Thread(target=work, args=(base,)) for base in range(CLIENTS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []


def test_more_statements_than_are_kept(conn):
    conn.prepare_threshold = 0
    conn.prepared_max = 5
    for round in range(3):
        for number in range(30):
            assert conn.execute(f"select {number} + %s::int", (round,)).fetchone() == (number + round,)
    conn.execute("deallocate all")
    assert conn.execute("select 7 + %s::int", (1,)).fetchone() == (8,)


def test_pipelines_recover(conn):
    with conn.pipeline():
        cursors = [conn.execute("select %s::int", (number,)) for number in range(500)]
        assert sum(cursor.fetchone()[0] for cursor in cursors) == sum(range(500))
    for _ in range(5):
        with pytest.raises(psycopg.errors.SyntaxError):
            with conn.pipeline():
                conn.execute("select 1")
                conn.execute("selec")
                conn.execute("select 2")
        assert conn.execute("select 3").fetchone() == (3,)


def test_copy_both_ways(conn):
    conn.execute("create table copied (n int, filler text)")
    with conn.cursor() as cursor:
        with cursor.copy("copy copied from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            for number in range(20_000):
                copy.write_row((number, "x" * 40))
        with cursor.copy("copy copied to stdout") as copy:
            assert sum(1 for _ in copy.rows()) == 20_000
        with pytest.raises(psycopg.errors.QueryCanceled):
            with cursor.copy("copy copied from stdin") as copy:
                copy.write("1\tx\n")
                raise psycopg.errors.QueryCanceled("changed my mind")
    assert conn.execute("select count(*) from copied").fetchone() == (20_000,)


def test_cancel(conn):
    timer = threading.Timer(0.2, conn.cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute("select pg_sleep(30)")
    timer.join()
    assert conn.execute("select 1").fetchone() == (1,)


def test_server_cursor_and_two_phases_of_a_transaction(conn):
    with conn.transaction():
        with conn.cursor(name="mine") as cursor:
            cursor.execute("select * from generate_series(1, 1000)")
            assert len(cursor.fetchall()) == 1000
        with pytest.raises(psycopg.errors.UndefinedTable):
            with conn.transaction():
                conn.execute("select * from nowhere")
        assert conn.execute("select 1").fetchone() == (1,)


def test_encoding_and_zone_stay(conn):
    with connect(client_encoding="latin1") as other:
        other.execute("set timezone to 'Asia/Tokyo'")
        for _ in range(20):
            assert other.execute("select 'é', current_setting('TimeZone')").fetchone() == ("é", "Asia/Tokyo")
            assert conn.execute("select 'é', current_setting('TimeZone')").fetchone() == ("é", "UTC")
        assert other.info.parameter_status("TimeZone") == "Asia/Tokyo"


def test_notices(conn):
    heard = []
    conn.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    conn.execute("do $$ begin raise notice 'hello'; end $$")
    assert heard == ["hello"]


def test_pool():
    target = " ".join(f"{key}={value}" for key, value in ARGS.items()) + " dbname=shop"
    with ConnectionPool(target, min_size=4, max_size=CLIENTS) as pool:
        for _ in range(50):
            with pool.connection() as conn:
                assert conn.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("database", ["own", "shop"])
def test_listen(database):
    with psycopg.connect(**ARGS, dbname=database, autocommit=True) as conn, connect() as other:
        conn.execute("listen here")
        other.execute("notify here, 'said'")
        assert [n.payload for n in conn.notifies(timeout=5, stop_after=1)] == ["said"]
        heard = []
        conn.add_notify_handler(heard.append)
        conn.execute("notify here, 'own'")
        assert [n.payload for n in heard] == ["own"]
        conn.execute("unlisten here")
        conn.execute("notify here, 'unheard'")
        assert len(heard) == 1


def test_asyncpg_listens():
    async def work():
        pool = await asyncpg.create_pool(**ARGS, database="shop", min_size=2, max_size=2)
        async with pool.acquire() as conn, pool.acquire() as other:
            heard = asyncio.Queue()
            listener = lambda _conn, _pid, channel, payload: heard.put_nowait((channel, payload))
            await conn.add_listener("Here", listener)
            async with conn.transaction():
                await conn.execute("select pg_notify('Here', 'own')")
            await other.execute("select pg_notify('Here', $1)", "said")
            for said in ["own", "said"]:
                assert await asyncio.wait_for(heard.get(), 5) == ("Here", said)
            await conn.remove_listener("Here", listener)
            await other.execute("select pg_notify('Here', 'unheard')")
            assert heard.empty()
        await pool.close()

    asyncio.run(work())


def test_asyncpg():
    async def work(base):
        conn = await asyncpg.connect(**ARGS, database="shop")
        try:
            for number in range(50):
                assert await conn.fetchval("select $1::int + $2::int", base, number) == base + number
            async with conn.transaction():
                rows = [row async for row in conn.cursor("select generate_series(1, 200)")]
                assert len(rows) == 200
            with pytest.raises(asyncpg.DivisionByZeroError):
                await conn.fetchval("select 1 / $1::int", 0)
        finally:
            await conn.close()

    async def main():
        await asyncio.gather(*(work(base) for base in range(CLIENTS)))

    asyncio.run(main())


def test_asyncpg_timeouts_cancel():
    async def main():
        conn = await asyncpg.connect(**ARGS, database="shop")
        with pytest.raises(asyncio.TimeoutError):
            await conn.fetchval("select pg_sleep(30)", timeout=0.2)
        assert await conn.fetchval("select 5") == 5
        await conn.close()

    asyncio.run(main())


def test_sqlalchemy():
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", ARGS["user"], ARGS["password"], ARGS["host"], ARGS["port"], "shop"
    )
    engine = sqlalchemy.create_engine(url)
    metadata = sqlalchemy.MetaData()
    things = sqlalchemy.Table("things", metadata, sqlalchemy.Column("n", sqlalchemy.Integer))
    metadata.create_all(engine)
    with engine.begin() as conn:
        conn.execute(things.insert(), [{"n": number} for number in range(100)])
    with engine.connect() as conn:
        assert conn.execute(sqlalchemy.select(sqlalchemy.func.sum(things.c.n))).scalar() == 4950
    engine.dispose()
