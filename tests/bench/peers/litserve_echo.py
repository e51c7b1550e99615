"""hob/echo's operation as a LitServe service."""

import os
import sys

import litserve


class Echo(litserve.LitAPI):
    def setup(self, device):
        with open(os.environ["BENCH_WORKERS"], "a") as file:
            file.write(f"{os.getpid()}\n")

    def decode_request(self, request):
        return request["text"]

    def predict(self, text):
        return len(text)

    def encode_response(self, length):
        return {"length": length}


if __name__ == "__main__":
    server = litserve.LitServer(Echo(), accelerator="cpu", devices=1, workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning")
