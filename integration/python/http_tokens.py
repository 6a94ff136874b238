"""Tokens and signatures that PyJWT, cryptography and hmac make, as groove-http takes or refuses them.

The key set's server is here, so that it can rotate its keys and go away in the midst of a test.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import socket
import threading
import time

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ADDRESS = os.environ["GROOVE_ADDRESS"]
KEYS_PORT = int(os.environ["KEYS_PORT"])
URL = f"http://{ADDRESS}"
PATIENCE = 30


class Keys:
    """A server of key sets that counts how often it is asked."""

    def __init__(self):
        self.keys, self.asked, self.server = {}, 0, None

    def start(self):
        keys = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                keys.asked += 1
                body = json.dumps({"keys": [public(kid, key) for kid, key in keys.keys.items()]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", KEYS_PORT), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.server = None


def public(kid, key):
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm, name = jwt.algorithms.RSAAlgorithm, None
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm, name = jwt.algorithms.ECAlgorithm, "ES256"
    else:
        algorithm, name = jwt.algorithms.OKPAlgorithm, "EdDSA"
    jwk = json.loads(algorithm.to_jwk(key.public_key()))
    jwk |= {"kid": kid, "use": "sig"}
    return jwk | ({"alg": name} if name else {})


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def claims(**changes):
    now = int(time.time())
    good = {"iss": "https://issuer.test", "aud": "shop", "sub": "ann", "exp": now + 600, "roles": ["admin", "dev"]}
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(key=RSA, algorithm="RS256", kid="rsa", **changes):
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} if kid else None)


def ask(token=None, path="/", **headers):
    headers = {"Host": "jwt.test"} | {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return requests.get(f"{URL}{path}", headers=headers, timeout=PATIENCE)


def eventually(what, seen):
    deadline = time.monotonic() + PATIENCE
    while not (found := seen()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def keys():
    keys = Keys()
    # Nobody serves the set yet: whether a token is good cannot be known.
    answer = ask(token())
    assert answer.status_code == 503 and answer.headers["Retry-After"]
    assert ask().status_code == 401
    keys.keys = {"rsa": RSA, "ec": EC, "ed": ED}
    keys.start()
    eventually("the key set is fetched", lambda: ask(token()).status_code == 200)
    yield keys
    if keys.server:
        keys.stop()


def test_every_family_of_signatures(keys):
    for key, algorithms, kid in [
        (RSA, ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], "rsa"),
        (EC, ["ES256"], "ec"),
        (ED, ["EdDSA"], "ed"),
    ]:
        for algorithm in algorithms:
            answer = ask(token(key, algorithm, kid))
            assert answer.status_code == 200, algorithm
            seen = answer.json()
            assert (seen["x-auth-user"], seen["x-auth-method"]) == ("ann", "jwt")
            assert seen["x-auth-roles"] == "admin,dev" and "authorization" not in seen
    # Without the name of its key, each that could have signed it is tried.
    assert ask(token(kid=None)).status_code == 200


def test_claims_reach_the_app_and_forgeries_do_not(keys):
    answer = ask(token(), X_Auth_User="root", X_Auth_Roles="root", X_Extra="root").json()
    assert (answer["x-auth-user"], answer["x-auth-roles"], answer["x-plan"]) == ("ann", "admin,dev", "ann via jwt")
    assert "x-extra" not in answer
    raw = requests.Request("GET", URL, headers={"Host": "jwt.test", "Authorization": f"Bearer {token()}"})
    raw.headers["X_Auth_User"] = "root"
    seen = requests.Session().send(raw.prepare(), timeout=PATIENCE).json()
    assert "x_auth_user" not in seen and seen["x-auth-user"] == "ann"
    # Nor where nobody has to show anything.
    seen = ask(path="/healthz", X_Auth_User="root").json()
    assert "x-auth-user" not in seen and "x-auth-method" not in seen


def test_values_of_claims_cannot_make_lines(keys):
    seen = ask(token(roles=["admin", "a\r\nX-Evil: 1"], sub="ann\nX-Evil: 2")).json()
    assert "x-evil" not in seen and "x-auth-roles" not in seen and "x-auth-user" not in seen


def test_what_is_no_good_token(keys):
    now = int(time.time())
    pem = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    def forged(header, sign):
        text = part(header) + b"." + part(claims())
        return (text + b"." + base64.urlsafe_b64encode(sign(text)).rstrip(b"=")).decode()

    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = token()
    head, body, signature = good.split(".")
    for name, bad in {
        "expired": token(exp=now - 61),
        "never expires": token(exp=None),
        "not yet": token(nbf=now + 120),
        "other issuer": token(iss="https://other.test"),
        "other audience": token(aud="bank"),
        "no role": token(roles=["dev"]),
        "other key": token(other),
        "none": forged({"alg": "none"}, lambda _: b""),
        "hmac with the public key": forged(
            {"alg": "HS256", "kid": "rsa"}, lambda text: hmac.new(pem, text, hashlib.sha256).digest()
        ),
        "another body": ".".join([head, part(claims(sub="root")).decode(), signature]),
        "no signature": f"{head}.{body}.",
        "garbage": "x.y.z",
        "key of another kind": token(EC, "ES256", "rsa"),
    }.items():
        answer = ask(bad)
        assert answer.status_code == 401, name
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"', name
    # Clocks may be a little apart.
    assert ask(token(exp=now - 30, nbf=now + 30)).status_code == 200
    assert ask().headers["WWW-Authenticate"] == "Bearer"


def test_keys_rotate_and_forged_names_cause_no_flood(keys):
    fresh = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    before = keys.asked
    for index in range(50):
        assert ask(token(kid=f"forged-{index}")).status_code == 401
    # One fetch in two seconds, however many names.
    assert keys.asked - before <= 3, keys.asked - before
    keys.keys = {"new": fresh, "ec": EC}
    eventually("the new key is fetched", lambda: ask(token(fresh, kid="new")).status_code == 200)
    # What was taken out of the set is good no more.
    assert ask(token()).status_code == 401
    keys.stop()
    eventually("the provider is away", lambda: ask(token(kid="forged")).status_code == 503)
    for _ in range(20):
        assert ask(token(fresh, kid="new")).status_code == 200
    keys.start()
    eventually("the provider is back", lambda: ask(token(kid="forged")).status_code == 401)


def test_tokens_in_a_cookie_or_the_query(keys):
    keys.keys = {"rsa": RSA}
    eventually("the key is there again", lambda: ask(token()).status_code == 200)
    host = {"Host": "places.test"}
    answer = requests.get(URL, headers=host, cookies={"token": token(), "other": "1"}, timeout=PATIENCE)
    assert answer.status_code == 200 and answer.json()["cookie"] == "other=1"
    answer = requests.get(URL, headers=host, params={"token": token(), "x": "1 2"}, timeout=PATIENCE)
    assert answer.status_code == 200 and answer.json()[":target"] == "/?x=1+2"
    assert requests.get(URL, headers=host | {"Authorization": f"Bearer {token()}"}, timeout=PATIENCE).status_code == 401


def signed(method="POST", path="/a?b=c", body=b"hello", key=b"a key of sixteen", when=None, team="blue"):
    when = str(int(time.time()) if when is None else when)
    host = "hmac.test"
    digest = hashlib.sha256(body).hexdigest()
    text = "\n".join(["HMAC-SHA256", when, method, host, path, f"x-team:{team}", "x-team", digest])
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    value = f"HMAC-SHA256 KeyId=ci, Timestamp={when}, SignedHeaders=x-team, Signature={signature}"
    return {"Host": host, "X-Team": team, "Authorization": value}


def test_signed_requests():
    def send(headers, body=b"hello", path="/a?b=c", method="POST"):
        return requests.request(method, f"{URL}{path}", data=body, headers=headers, timeout=PATIENCE)

    answer = send(signed())
    assert answer.status_code == 200, answer.text
    assert answer.json()["x-auth-user"] == "ci" and answer.json()[":body"] == "hello"
    now = int(time.time())
    again = signed(when=now - 5)
    assert send(again).status_code == 200
    for name, answer in {
        "used twice": send(again),
        "another body": send(signed(), b"hullo"),
        "another path": send(signed(), path="/a?b=d"),
        "another method": send(signed(), method="PUT"),
        "another header": send(signed() | {"X-Team": "red"}),
        "another key": send(signed(key=b"a key of others!")),
        "too old": send(signed(when=now - 301)),
        "not yet": send(signed(when=now + 301)),
        "chunks": send(signed(), (part for part in [b"hel", b"lo"])),
        "nothing": send({"Host": "hmac.test"}),
    }.items():
        assert answer.status_code == 401, name
        assert answer.headers["WWW-Authenticate"].startswith("HMAC-SHA256"), name
    assert send(signed(body=b"x" * 2000), b"x" * 2000).status_code == 413
    body = b"y" * 1000
    assert send(signed(body=body), body).json()[":body"] == body.decode()


def test_a_signed_body_that_waits_to_be_asked_for():
    # Not that of another test: a signature counts once.
    body = b"hello, once"
    lines = signed(body=body) | {"Expect": "100-continue", "Content-Length": str(len(body)), "Connection": "close"}
    head = "POST /a?b=c HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    host, port = ADDRESS.rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE) as stream:
        stream.settimeout(PATIENCE)
        stream.sendall(head.encode())
        with stream.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 100 Continue\r\n" and answer.readline() == b"\r\n"
            stream.sendall(body)
            said = answer.read()
    assert b"HTTP/1.1 200 OK\r\n" in said and b'":body":"hello, once"' in said, said
