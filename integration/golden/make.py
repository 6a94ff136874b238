"""Makes the golden vectors of proxies/memcached/tests/golden: which server each client gives a key to.

Real memcacheds listen on loopback addresses of their own, each client stores the same 200 keys in them, and then
every server is asked what it has. Nothing is computed here: the vectors are what the clients do.

    python3 integration/golden/make.py        # with the packages of requirements.txt beside this file,
                                              # and Debian's memcached nutcracker ruby-dalli
                                              # libspymemcached-java default-jdk-headless

Only needed when a client or a case is added: the vectors themselves are committed.
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parents[1] / "proxies/memcached/tests/golden"

# Server lists. `name` is what rings of twemproxy know a server by.
EQUAL = [("127.0.1.1", 11211, 1), ("127.0.1.2", 11211, 1), ("127.0.1.3", 11212, 1)]
SEVEN = [(f"127.0.1.{number}", 11211, 1) for number in range(1, 8)]
WEIGHTED = [("127.0.1.1", 11211, 1), ("127.0.1.2", 11211, 3), ("127.0.1.3", 11212, 2), ("127.0.1.4", 22122, 7)]
NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"]


def make_keys() -> list[bytes]:
    keys = [f"key-{number}" for number in range(70)]
    keys += [f"user:{{{number * 7919}}}:profile:{number % 3}" for number in range(30)]
    keys += [f"{{tag{number % 5}}}{number}" for number in range(15)]
    keys += [f"session/{number * 2654435761 % 2**32:08x}" for number in range(30)]
    keys += ["k" * length for length in range(1, 20)]
    keys += ["long:" + "abcdefghij" * (length // 10) + "x" * (length % 10) for length in range(60, 240, 9)]
    keys += ["a", "b", "foo", "{}", "{}x", "a{b", "a}b{", "a{b}c{d}e", "!", "~", "'quoted'", "a|#|b", "a/b/c", "x=1&y=2"]
    keys = list(dict.fromkeys(keys))[:192]
    high = ["schlüssel", "ключ:1", "キー", "naïve/ë", "ÿ", "€uro", "{ö}ä", "µ:42"]
    keys = [key.encode() for key in keys] + [key.encode() for key in high]
    assert len(keys) == len(set(keys)) == 200, len(keys)
    return keys


KEYS = make_keys()


class Servers:
    """A memcached at each address of the lists above."""

    def __init__(self) -> None:
        addresses = sorted({(host, port) for host, port, _ in EQUAL + SEVEN + WEIGHTED})
        self.processes = {
            (host, port): subprocess.Popen(
                ["memcached", "-u", "nobody", "-l", host, "-p", str(port), "-U", "0", "-t", "1", "-m", "16"]
            )
            for host, port in addresses
        }
        self.connections = {address: connect(address) for address in addresses}

    def ask(self, address: tuple[str, int], request: bytes, end: bytes) -> bytes:
        self.connections[address].sendall(request)
        answer = b""
        while not answer.endswith(end):
            answer += self.connections[address].recv(1 << 16)
        return answer

    def clear(self) -> None:
        for address in self.connections:
            self.ask(address, b"flush_all\r\nmn\r\n", b"MN\r\n")

    def owners(self, servers: list[tuple[str, int, int]]) -> list[int | None]:
        held = []
        for host, port, _ in servers:
            requests = b"".join(b"mg " + key + b" k\r\n" for key in KEYS)
            lines = self.ask((host, port), requests + b"mn\r\n", b"MN\r\n").split(b"\r\n")[: len(KEYS)]
            held.append([line.startswith(b"HD") for line in lines])
        owners: list[int | None] = []
        for index, key in enumerate(KEYS):
            having = [number for number, held_here in enumerate(held) if held_here[index]]
            assert len(having) <= 1, (key, having)
            owners.append(having[0] if having else None)
        return owners

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()


def connect(address: tuple[str, int]) -> socket.socket:
    for _ in range(500):
        try:
            return socket.create_connection(address)
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"nobody listens at {address}")


def endpoints(servers, names=None, weights=True) -> list[dict]:
    listed = []
    for number, (host, port, weight) in enumerate(servers):
        endpoint: dict = {"address": f"{host}:{port}"}
        if names:
            endpoint["name"] = names[number]
        if weights and weight != 1:
            endpoint["weight"] = weight
        listed.append(endpoint)
    return listed


def case(servers, hash_config, store, *, names=None, weights=True) -> dict:
    """`store` is told where the servers are and stores every key it can."""
    SERVERS.clear()
    store(servers)
    owners = SERVERS.owners(servers)
    missing = sum(owner is None for owner in owners)
    assert missing <= 8, f"{hash_config}: {missing} keys were not stored"
    return {"hash": hash_config, "endpoints": endpoints(servers, names, weights), "owners": owners}


# -- twemproxy -----------------------------------------------------------------------------------------------


def twemproxy() -> list[dict]:
    functions = ["one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32"]
    functions += ["hsieh", "murmur", "jenkins"]
    pools = [(EQUAL, None, function, "ketama", None) for function in functions]
    pools += [(WEIGHTED, NAMES, "fnv1a_64", "ketama", None), (WEIGHTED, None, "murmur", "ketama", None)]
    pools += [(SEVEN, NAMES, "fnv1a_64", "ketama", "{}"), (EQUAL, None, "md5", "modula", "$$")]
    pools += [(WEIGHTED, NAMES, "crc16", "modula", None), (EQUAL, None, "one_at_a_time", "modula", None)]
    config, cases = "", []
    for number, (servers, names, function, distribution, tag) in enumerate(pools):
        config += f"pool{number}:\n  listen: 127.0.1.100:{22500 + number}\n  hash: {function}\n"
        config += f"  distribution: {distribution}\n  timeout: 2000\n"
        if tag:
            config += f'  hash_tag: "{tag}"\n'
        config += "  servers:\n"
        for index, (host, port, weight) in enumerate(servers):
            config += f"   - {host}:{port}:{weight}" + (f" {names[index]}" if names else "") + "\n"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "nutcracker.yml")
        path.write_text(config)
        command = ["nutcracker", "-c", str(path), "-s", "22499", "-a", "127.0.1.100", "-o", f"{folder}/log"]
        process = subprocess.Popen(command)
        try:
            for number, (servers, names, function, distribution, tag) in enumerate(pools):

                def store(_, number=number):
                    proxy = connect(("127.0.1.100", 22500 + number))
                    for key in KEYS:
                        proxy.sendall(b"set " + key + b" 0 0 1\r\nx\r\n")
                        assert proxy.recv(100) == b"STORED\r\n", key

                hash_config = {"dialect": "twemproxy", "function": function}
                hash_config["distribution"] = distribution
                if tag:
                    hash_config["tag"] = tag
                cases.append(case(servers, hash_config, store, names=names))
        finally:
            process.terminate()
    return cases


# -- libmemcached --------------------------------------------------------------------------------------------


def libmemcached() -> list[dict]:
    import pylibmc

    def run(servers, behaviors, config):
        def store(servers):
            listed = [f"{host}:{port}:{weight}" for host, port, weight in servers]
            client = pylibmc.Client(listed, behaviors=behaviors)
            for key in KEYS:
                assert client.set(key, b"x"), key

        weighted = config.get("distribution", "") == "ketama"
        return case(servers, {"dialect": "libmemcached"} | config, store, weights=weighted)

    # pylibmc's names for libmemcached's functions, and ours.
    functions = {"default": "one_at_a_time", "md5": "md5", "crc": "crc32", "fnv1_64": "fnv1_64"}
    functions |= {"fnv1a_64": "fnv1a_64", "fnv1_32": "fnv1_32", "fnv1a_32": "fnv1a_32", "murmur": "murmur"}
    functions |= {"hsieh": "hsieh"}
    cases = [run(EQUAL, {}, {}), run(WEIGHTED, {}, {})]
    for theirs, ours in functions.items():
        for distribution in ["modula", "consistent ketama"]:
            name = "modula" if distribution == "modula" else "ketama_unweighted"
            config = {"function": ours, "distribution": name}
            try:
                cases.append(run(EQUAL, {"hash": theirs, "distribution": distribution}, config))
            except Exception as error:  # not built in
                print(f"pylibmc: {theirs}, {distribution}: {error!r}", file=sys.stderr)
    for servers in [EQUAL, SEVEN, WEIGHTED]:
        behaviors = {"ketama_weighted": True}
        cases.append(run(servers, behaviors, {"function": "md5", "distribution": "ketama"}))
    return cases


# -- Python --------------------------------------------------------------------------------------------------


def pymemcache() -> list[dict]:
    from pymemcache.client.hash import HashClient

    def store(servers):
        client = HashClient([(host, port) for host, port, _ in servers], default_noreply=False)
        for key in KEYS[:192]:
            assert client.set(key.decode(), b"x"), key

    return [case(servers, {"dialect": "pymemcache"}, store) for servers in [EQUAL, SEVEN]]


def python_memcached() -> list[dict]:
    import memcache

    def store(servers):
        client = memcache.Client([(f"{host}:{port}", weight) for host, port, weight in servers])
        for key in KEYS:
            assert client.set(key.decode(), b"x"), key

    return [case(servers, {"dialect": "python-memcached"}, store) for servers in [EQUAL, SEVEN, WEIGHTED]]


# -- Ruby and Java -------------------------------------------------------------------------------------------


def dalli() -> list[dict]:
    def store(servers):
        listed = [f"{host}:{port}:{weight}" for host, port, weight in servers]
        keys = "\n".join(key.decode() for key in KEYS)
        subprocess.run(["ruby", str(HERE / "dalli.rb"), *listed], input=keys.encode(), check=True)

    return [case(servers, {"dialect": "dalli"}, store) for servers in [EQUAL, SEVEN, WEIGHTED]]


def spymemcached() -> list[dict]:
    def run(servers, mode, config):
        def store(servers):
            listed = [f"{host}:{port}:{weight}" for host, port, weight in servers]
            keys = "\n".join(key.decode() for key in KEYS)
            command = ["java", "-cp", "/usr/share/java/spymemcached.jar", str(HERE / "Spy.java"), mode, *listed]
            subprocess.run(command, input=keys.encode(), check=True, stderr=subprocess.DEVNULL)

        weighted = config.get("distribution", "").startswith("ketama") or not config.get("distribution")
        return case(servers, config, store, weights=weighted)

    spy = {"dialect": "spymemcached"}
    cases = [run(servers, "ketama", spy) for servers in [EQUAL, SEVEN, WEIGHTED]]
    evcache = {"dialect": "evcache"}
    cases += [run(servers, "evcache", evcache) for servers in [SEVEN]]
    cases.append(run(SEVEN, "array", {"function": "java", "distribution": "modula"}))
    return cases


if __name__ == "__main__":
    wanted = sys.argv[1:]
    OUT.mkdir(parents=True, exist_ok=True)
    SERVERS = Servers()
    try:
        for make in [twemproxy, libmemcached, pymemcache, python_memcached, dalli, spymemcached]:
            name = make.__name__.replace("_", "-")
            if wanted and name not in wanted:
                continue
            cases = make()
            lines = ",\n".join("  " + json.dumps(case) for case in cases)
            (OUT / f"{name}.json").write_text(f"[\n{lines}\n]\n")
            print(name, len(cases), "cases")
        # A character a byte: keys need not be UTF-8.
        (OUT / "keys.json").write_text(json.dumps([key.decode("latin-1") for key in KEYS], indent=0) + "\n")
    finally:
        SERVERS.close()
