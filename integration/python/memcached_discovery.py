"""A client of ElastiCache's: asks one address for all, and spreads its keys over what it is told.

CONFIGURATION is whom to ask, EXPECTED what is to be told, as HOST:PORT with spaces between.
"""

import os

from elasticache_auto_discovery import discover
from pymemcache.client.base import Client
from pymemcache.client.hash import HashClient

configuration = os.environ["CONFIGURATION"]
expected = {tuple(server.rsplit(":", 1)) for server in os.environ["EXPECTED"].split()}


def nodes_of(text):
    return [tuple(part.decode() for part in node.split(b"|")) for node in text.split(b" ")]


def check(nodes):
    found = {(host, port.strip()) for host, _, port in nodes}
    assert found == expected, (found, expected)
    assert all(host == ip for host, ip, _ in nodes), nodes


check([tuple(part.decode() for part in node) for node in discover(configuration, 5)])

# As pymemcache's client of ElastiCache asks.
host, port = configuration.rsplit(":", 1)
client = Client((host, int(port)))
answer = client.raw_command(b"config get cluster", end_tokens=b"\n\r\nEND\r\n")
lines = answer.splitlines()
assert lines[0].startswith(b"CONFIG cluster 0 ") and lines[1].isdigit(), answer
check(nodes_of(lines[2]))

# The older way is a key like any other.
value = client.get("AmazonElastiCache:cluster")
assert value.splitlines() == lines[1:3], value

servers = HashClient([(host, int(port)) for host, port in expected])
for number in range(200):
    assert servers.set(f"key{number}", str(number), noreply=False)
# Whoever is asked: all of them are the same cache.
for number in range(200):
    assert client.get(f"key{number}") == str(number).encode(), number
