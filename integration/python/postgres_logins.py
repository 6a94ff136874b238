"""How client libraries of Python log in: bound to the certificate or not, over TLS or not."""

import asyncio
import os
import ssl

import asyncpg
import psycopg
import pytest

ARGS = dict(host="localhost", port=int(os.environ["GROOVE_PORT"]), user="app")
CA = os.environ["GROOVE_CA"]


def connect(**kwargs):
    return psycopg.connect(**{**ARGS, "password": "secret", **kwargs}, dbname="shop", sslrootcert=CA)


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_psycopg_over_tls(binding):
    with connect(sslmode="verify-full", channel_binding=binding) as conn:
        assert conn.execute("select current_user").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(sslmode="verify-full", channel_binding=binding, password="wrong")


def test_psycopg_in_the_clear():
    with connect(sslmode="disable", channel_binding="prefer") as conn:
        assert conn.execute("select current_user").fetchone() == ("app",)
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        connect(sslmode="disable", channel_binding="require")


def test_asyncpg_which_knows_no_binding():
    async def main(password):
        context = ssl.create_default_context(cafile=CA)
        conn = await asyncpg.connect(**ARGS, password=password, database="shop", ssl=context)
        assert await conn.fetchval("select current_user") == "app"
        await conn.close()

    asyncio.run(main("secret"))
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(main("wrong"))
