"""hob/echo's operation as a mosec service; BENCH_WORKERS_COUNT processes."""

import os

from mosec import Server, Worker


class Echo(Worker):
    def __init__(self):
        with open(os.environ["BENCH_WORKERS"], "a") as file:
            file.write(f"{os.getpid()}\n")

    def forward(self, data):
        return {"length": len(data["text"])}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Echo, num=int(os.environ.get("BENCH_WORKERS_COUNT", "1")))
    server.run()
