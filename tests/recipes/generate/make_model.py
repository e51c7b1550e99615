"""Makes a tiny random GPT-2 and a tokenizer of single words in the folder that is named: the same each time.

Apart from the recipe, which finds a folder and does not know who made it.
"""

import sys

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

WORDS = [
    "<end>",
    "<unknown>",
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "in",
    "mat",
    "park",
    "and",
    "then",
    "it",
    "was",
    "so",
    "fine",
    "today",
]

torch.manual_seed(7)
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unknown>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unknown>", eos_token="<end>").save_pretrained(sys.argv[1])
sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), bos_token_id=0, eos_token_id=0, **sizes)).save_pretrained(sys.argv[1])
