"""One Chromium for all tests, and for each a profile of its own. `*.test` is this machine, nothing else is anywhere."""

import base64
import hashlib
import os
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import sync_playwright

PLAIN = os.environ["GROOVE_ADDRESS"].rsplit(":", 1)[1]
SECURE = os.environ["GROOVE_SECURE"].rsplit(":", 1)[1]
PROVIDER = f"http://{os.environ['GROOVE_PROVIDER']}"
PATIENCE_MS = 20_000


def plain(host, path="/"):
    return f"http://{host}:{PLAIN}{path}"


def secure(host, path="/"):
    return f"https://{host}:{SECURE}{path}"


def eventually(what, seen):
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not (found := seen()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def fingerprint(certificate):
    """What Chromium is told to believe a certificate by: the SHA-256 of its public key."""
    with open(certificate, "rb") as file:
        key = x509.load_pem_x509_certificate(file.read()).public_key()
    return base64.b64encode(hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()


@pytest.fixture(scope="session")
def chromium():
    arguments = [
        "--host-resolver-rules=MAP *.test 127.0.0.1,MAP * ~NOTFOUND,EXCLUDE 127.0.0.1",
        f"--ignore-certificate-errors-spki-list={fingerprint(os.environ['GROOVE_CERTIFICATE'])}",
    ]
    with sync_playwright() as playwright:
        # Root may not use Chromium's sandbox; nothing comes from outside here.
        browser = playwright.chromium.launch(executable_path=os.environ["GROOVE_CHROMIUM"], args=arguments, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def profiles(chromium):
    """Makes profiles: cookies, cache and connections of their own."""
    made = []

    def make(**options):
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def page(profiles):
    return profiles().new_page()
