"""grpcio through the proxy, to grpcio."""

import os
import queue
import threading

import grpc
import pytest

ADDRESS = os.environ["GROOVE_ADDRESS"]


@pytest.fixture(params=["plain", "twice"])
def call(request):
    """`twice` goes through the proxy two times, the second over TLS."""
    authority = {"plain": "grpc.test", "twice": "twice.test"}[request.param]
    channel = grpc.insecure_channel(ADDRESS, options=[("grpc.default_authority", authority)])

    def of(kind, name):
        return getattr(channel, kind)("/e.Echo/" + name)

    yield of
    channel.close()


def test_unary_calls_carry_metadata_at_both_ends(call):
    reply, outcome = call("unary_unary", "Unary").with_call(b"hello", timeout=10, metadata=(("x-who", "me"),))
    assert reply == b"hello"
    assert dict(outcome.initial_metadata())["x-begin"] == "yes"
    assert dict(outcome.trailing_metadata())["x-end"] == "yes"
    assert dict(outcome.trailing_metadata())["authority"] == "me"


def test_a_failure_has_its_code_and_its_words(call):
    with pytest.raises(grpc.RpcError) as failed:
        call("unary_unary", "Fail")(b"never", timeout=10)
    assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "no: never"


def test_streams_down_are_whole(call):
    messages = list(call("unary_stream", "Down")(b"3000", timeout=30))
    assert [int(message.split()[0]) for message in messages] == list(range(3000))


def test_streams_up_are_whole(call):
    assert call("stream_unary", "Up")((b"y" * 1000 for _ in range(3000)), timeout=30) == b"3000000"


def test_each_answer_comes_before_the_next_question(call):
    questions = queue.Queue()
    answers = call("stream_stream", "Both")(iter(questions.get, None), timeout=30)
    for index in range(200):
        questions.put(b"a%d" % index)
        assert next(answers) == b"A%d" % index
    questions.put(None)
    assert list(answers) == []


def test_many_calls_share_a_connection(call):
    unary, failures = call("unary_unary", "Unary"), []

    def run():
        for index in range(100):
            if unary(b"%d" % index, timeout=10) != b"%d" % index:
                failures.append(index)

    threads = [threading.Thread(target=run) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert failures == []


def test_a_call_that_is_cancelled_ends_at_the_server(call):
    waiting = call("unary_stream", "Wait")(b"")
    assert next(waiting) == b"still here"
    waiting.cancel()
    assert call("unary_unary", "HasLeft")(b"", timeout=15) == b"yes"
