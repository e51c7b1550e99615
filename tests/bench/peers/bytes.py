"""Ways in which large arrays go to another process and back: W4's columns beside Hob's.

All do the same work: one is added to each number of an array of float32, in the other process but for
`memcpy`, and the result is there for the caller to look at. It stands apart from the Rust side because numpy
and shared memory are what programs in Python have for this, and mapping memory takes unsafe code in Rust, of
which this project has none. Reads one order a line, `{"column": "shm", "bytes": 16000000, "count": 8}`;
answers each with a line `{"times": [seconds, ...]}`. What an order needs is made for it, tried once and let
go of afterwards, none of which counts.
"""

import base64
import concurrent.futures
import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing import shared_memory

import numpy

# A process that answers lines of JSON with arrays in base64.
BASE64 = """
import base64, json, sys
import numpy
for line in sys.stdin.buffer:
    numbers = numpy.frombuffer(base64.b64decode(json.loads(line)["x"]), "<f4")
    result = base64.b64encode(numpy.add(numbers, 1)).decode()
    sys.stdout.write(json.dumps({"x": result}) + chr(10))
    sys.stdout.flush()
"""


def add(numbers):
    """What all of them do."""
    return numpy.add(numbers, 1)


class Memcpy:
    """The floor: in this process, a copy there, the work, and no more."""

    def prepare(self, numbers):
        self.there, self.result = numpy.empty_like(numbers), numpy.empty_like(numbers)

    def call(self, numbers):
        numpy.copyto(self.there, numbers)
        return numpy.add(self.there, 1, out=self.result)

    def release(self):
        self.there = self.result = None

    def close(self):
        pass


def serve_shared(connection):
    """The other process of `Shared`: maps what it is told of, then works there for each byte that comes."""
    while (names := connection.recv()) is not None:
        given, result = (shared_memory.SharedMemory(name) for name in names)
        connection.send_bytes(b"r")
        numbers, out = numpy.frombuffer(given.buf, "<f4"), numpy.frombuffer(result.buf, "<f4")
        while connection.recv_bytes() == b"g":
            numpy.add(numbers, 1, out=out)
            connection.send_bytes(b"d")
        del numbers, out
        given.close()
        result.close()


class Shared:
    """Two pieces of shared memory that both sides keep mapped, and a byte each way. Nothing is checked, named
    or bounded.

    The caller copies its array there, and looks at the result in place (`out` is None), copies it to memory
    of its own (`copied`), or goes both ways through system calls (`calls`), as one that must not be ended by
    the other side has to.
    """

    def __init__(self, out):
        self.out = out
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve_shared, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def prepare(self, numbers):
        self.pieces = [shared_memory.SharedMemory(create=True, size=numbers.nbytes) for _ in range(2)]
        self.given, self.result = (numpy.frombuffer(piece.buf, "<f4")[: numbers.size] for piece in self.pieces)
        self.own = numpy.ones_like(numbers) if self.out else None
        # Where Linux has them.
        self.files = [os.open(f"/dev/shm/{piece.name}", os.O_RDWR) for piece in self.pieces]
        self.connection.send([piece.name for piece in self.pieces])
        self.connection.recv_bytes()

    def call(self, numbers):
        if self.out == "calls":
            moved = os.pwrite(self.files[0], numbers, 0)
        else:
            numpy.copyto(self.given, numbers)
            moved = numbers.nbytes
        self.connection.send_bytes(b"g")
        self.connection.recv_bytes()
        if self.own is None:
            return self.result
        if self.out == "calls":
            moved += os.preadv(self.files[1], [self.own], 0)
            if moved != 2 * numbers.nbytes:
                raise ValueError(f"{moved} bytes were moved by two system calls")
        else:
            numpy.copyto(self.own, self.result)
        return self.own

    def release(self):
        self.connection.send_bytes(b"e")
        self.given = self.result = self.own = None
        for file in self.files:
            os.close(file)
        for piece in self.pieces:
            piece.close()
            piece.unlink()

    def close(self):
        self.connection.send(None)
        self.process.join()


class Executor:
    """concurrent.futures.ProcessPoolExecutor, which pickles the array both ways."""

    def __init__(self):
        self.executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def prepare(self, numbers):
        pass

    def call(self, numbers):
        return self.executor.submit(add, numbers).result()

    def release(self):
        pass

    def close(self):
        self.executor.shutdown()


class Base64:
    """The array as base64 in a line of JSON, through pipes."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", BASE64], stdin=-1, stdout=-1)

    def prepare(self, numbers):
        pass

    def call(self, numbers):
        self.process.stdin.write(json.dumps({"x": base64.b64encode(numbers).decode()}).encode() + b"\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        return numpy.frombuffer(base64.b64decode(reply["x"]), "<f4")

    def release(self):
        pass

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ray:
    """An actor of ray on this machine; arrays go through its object store, and the result is looked at
    there."""

    def __init__(self):
        import ray

        self.ray = ray
        # Large enough for what waits to be collected; on this machine alone.
        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", logging_level="error", object_store_memory=5 << 30)

        @ray.remote
        class Adder:
            def add(self, numbers):
                return numpy.add(numbers, 1)

        self.actor = Adder.remote()

    def prepare(self, numbers):
        pass

    def call(self, numbers):
        return self.ray.get(self.actor.add.remote(numbers))

    def release(self):
        pass

    def close(self):
        self.ray.shutdown()


COLUMNS = {
    "memcpy": Memcpy,
    "shm": lambda: Shared(None),
    "shm-copied": lambda: Shared("copied"),
    "shm-calls": lambda: Shared("calls"),
    "executor": Executor,
    "base64": Base64,
    "ray": Ray,
}


def calls(column, size, count):
    """`count` calls with an array of so many bytes, after one that does not count."""
    numbers = (numpy.arange(size // 4, dtype=numpy.uint32) % 1024).astype("<f4")
    column.prepare(numbers)
    times = []
    for _ in range(count + 1):
        begun = time.perf_counter()
        result = column.call(numbers)
        times.append(time.perf_counter() - begun)
        places = [0, numbers.size // 2, -1]
        if result.size != numbers.size or any(result[place] != numbers[place] + 1 for place in places):
            raise ValueError("a wrong result")
        del result
    column.release()
    return {"times": times[1:]}


def main():
    # Ray and what it starts print as they like: answers have a way of their own.
    answers, sys.stdout = sys.stdout, sys.stderr
    columns = {}
    for line in sys.stdin:
        order = json.loads(line)
        name = order["column"]
        if name not in columns:
            columns[name] = COLUMNS[name]()
        print(json.dumps(calls(columns[name], order["bytes"], order["count"])), file=answers, flush=True)
    for column in columns.values():
        column.close()


if __name__ == "__main__":
    main()
