"""What python-binary-memcached's suite expects of its own conftest, which its source distribution leaves out.

Its servers are already running: MEMCACHED_HOST on the port 11211, and SASL_PORT with a user."""

import os

import pytest

IPV6_PORT = 0


@pytest.fixture
def memcached_sasl():
    if "SASL_PORT" not in os.environ:
        pytest.skip("no server with SASL")
    return int(os.environ["SASL_PORT"]), "user", "secret"
