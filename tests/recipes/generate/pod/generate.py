"""Ordinary torch and transformers, as they are written for no sandbox at all.

Apart from the tests that run it, because it is a recipe: nothing here knows where it runs.
"""

import os

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

#: The folder that recipe.toml asks to read.
MODEL = "MODEL"


class Numbers(torch.utils.data.Dataset):
    """Rows of four equal numbers, and the process that made each."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return torch.full((4,), float(index)), os.getpid()


class Generate:
    """The operations of `test/generate`."""

    def load(self, models):
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.model = GPT2LMHeadModel.from_pretrained(MODEL).eval()

    def generate(self, input):
        asked = self.tokenizer(input["text"], return_tensors="pt")
        with torch.no_grad():
            given = self.model.generate(**asked, max_new_tokens=12, do_sample=False, pad_token_id=0)
        return {"tokens": given[0].tolist()}

    def load_rows(self, input):
        sums, workers = [], set()
        for rows, makers in torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=2):
            sums.append(float(rows.sum()))
            workers.update(makers.tolist())
        workers.discard(os.getpid())
        return {"sums": sums, "workers": len(workers)}
