"""Sentence embeddings as a mosec service with batches."""

import embedding
from mosec import Server, Worker


class Embed(Worker):
    def __init__(self):
        self.model = embedding.load()
        embedding.tell_worker()

    def forward(self, data):
        return embedding.embed(self.model, data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Embed, num=1, max_batch_size=embedding.BATCH_ITEMS, max_wait_time=embedding.BATCH_WAIT_MS)
    server.run()
