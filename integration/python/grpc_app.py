"""A gRPC server of every kind of call; its messages are plain bytes."""

import sys
import threading
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-begin", "yes"),))
    context.set_trailing_metadata((("x-end", "yes"), ("authority", dict(context.invocation_metadata()).get("x-who", ""))))
    return request


def down(request, context):
    for index in range(int(request)):
        yield b"%d " % index + b"x" * 1000


def up(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: " + request.decode())


def wait(request, context):
    """Holds the call until its client has left, and says so to whoever asks next."""
    left.clear_when(context)
    while context.is_active():
        yield b"still here"
        waiting.wait(0.02)


class Left:
    def __init__(self):
        self.event = threading.Event()

    def clear_when(self, context):
        self.event.clear()
        context.add_callback(self.event.set)


left = Left()
waiting = threading.Event()


def has_left(request, context):
    return b"yes" if left.event.wait(10) else b"no"


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "HasLeft": grpc.unary_unary_rpc_method_handler(has_left),
}

server = grpc.server(futures.ThreadPoolExecutor(32))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("e.Echo", handlers)])
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
