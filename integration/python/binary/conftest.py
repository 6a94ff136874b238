"""What python-binary-memcached's suite expects of its own conftest, which its source distribution leaves out.

Its servers are already running: MEMCACHED_HOST on the port 11211, SASL_PORT with a user, and one on the unix socket
MEMCACHED_SOCKET, which the suite takes to be in a fixed place."""

import os

import pytest
from bmemcached.protocol import Protocol

init = Protocol.__init__


def elsewhere(self, server, *arguments, **named):
    init(self, os.environ["MEMCACHED_SOCKET"] if server == "/tmp/memcached.sock" else server, *arguments, **named)


Protocol.__init__ = elsewhere

IPV6_PORT = 0


@pytest.fixture
def memcached_sasl():
    if "SASL_PORT" not in os.environ:
        pytest.skip("no server with SASL")
    return int(os.environ["SASL_PORT"]), "user", "secret"
