"""Ways in which Python programs have work done by another process: W1's columns that a Python program drives.

It stands apart from the Rust side because their users are Python programs too: what the client costs is a
part of the price. Reads one order a line, `{"column": "executor-1", "in_flight": 8, "count": 2000}`; answers
each with a line `{"total": seconds, "times": [seconds, ...]}`, a time for each call from when it was handed
over until its result was there.
"""

import collections
import concurrent.futures
import json
import multiprocessing
import subprocess
import sys
import time

import execnet

INPUT = {"text": "hello"}
OUTPUT = {"length": 5}

# The far side of execnet's channel: it answers in order, until it is told to end.
EXECNET = """
while True:
    request = channel.receive()
    if request is None:
        break
    channel.send({"length": len(request["text"])})
"""

# The daemon that the Rust side drives too comes as an argument, so that there is one text of it.
DAEMON = sys.argv[1]
ONCE = sys.argv[2]


def length(request):
    """What all of them do."""
    return {"length": len(request["text"])}


class Executor:
    """concurrent.futures.ProcessPoolExecutor."""

    def __init__(self, workers):
        # Started afresh: forking a process with threads is what its own documentation warns of.
        context = multiprocessing.get_context("spawn")
        self.executor = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)

    def send(self):
        return self.executor.submit(length, INPUT)

    def receive(self, future):
        return future.result()

    def close(self):
        self.executor.shutdown()


class Channel:
    """One execnet gateway and a channel of it."""

    def __init__(self):
        self.gateway = execnet.makegateway(f"popen//python={sys.executable}")
        self.channel = self.gateway.remote_exec(EXECNET)

    def send(self):
        self.channel.send(INPUT)

    def receive(self, _):
        return self.channel.receive()

    def close(self):
        self.channel.send(None)
        self.gateway.exit()


class JsonRpc:
    """A daemon that reads JSON-RPC lines, and the client that such daemons come with."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", DAEMON], stdin=-1, stdout=-1)
        self.number = 0

    def send(self):
        self.number += 1
        parameters = {"tool_name": "echo", "args": INPUT}
        request = {"jsonrpc": "2.0", "id": self.number, "method": "execute_tool", "params": parameters}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return self.number

    def receive(self, number):
        reply = json.loads(self.process.stdout.readline())
        if reply["id"] != number:
            raise ValueError(f"the answer is to {reply['id']}, not to {number}")
        return json.loads(reply["result"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Fresh:
    """A process for each call."""

    def send(self):
        return subprocess.Popen([sys.executable, "-I", "-S", "-c", ONCE], stdin=-1, stdout=-1)

    def receive(self, process):
        return json.loads(process.communicate(json.dumps(INPUT).encode())[0])

    def close(self):
        pass


def calls(column, in_flight, count):
    """Makes `count` calls, so many of them in flight, results taken in the order of the calls."""
    clock = time.perf_counter
    waiting = collections.deque()
    times = []
    begun = 0
    start = clock()
    while len(times) < count:
        while begun < count and len(waiting) < in_flight:
            sent = clock()
            waiting.append((sent, column.send()))
            begun += 1
        sent, handle = waiting.popleft()
        result = column.receive(handle)
        times.append(clock() - sent)
        if result != OUTPUT:
            raise ValueError(f"a wrong result: {result}")
    return {"total": clock() - start, "times": times}


def main():
    columns = {
        "executor-1": Executor(1),
        "executor-2": Executor(2),
        "execnet": Channel(),
        "jsonrpc-python": JsonRpc(),
        "exec-python": Fresh(),
    }
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(calls(columns[order["column"]], order["in_flight"], order["count"])), flush=True)
    for column in columns.values():
        column.close()


if __name__ == "__main__":
    main()
