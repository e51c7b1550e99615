"""Sentence embeddings as a LitServe service with batches."""

import sys

import embedding
import litserve


class Embed(litserve.LitAPI):
    def setup(self, device):
        self.model = embedding.load()
        embedding.tell_worker()

    def decode_request(self, request):
        return request

    def batch(self, inputs):
        return inputs

    def predict(self, inputs):
        return embedding.embed(self.model, inputs)

    def unbatch(self, results):
        return results

    def encode_response(self, result):
        return result


if __name__ == "__main__":
    api = Embed(max_batch_size=embedding.BATCH_ITEMS, batch_timeout=embedding.BATCH_WAIT_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning")
