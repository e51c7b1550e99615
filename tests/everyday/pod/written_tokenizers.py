"""tokenizers, in the order of its quick tour: train, save, encode, pairs, padding, batches, then other models
and parts."""

import multiprocessing
import os
import tempfile

from tokenizers import (
    AddedToken,
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [f"Hello, y'all! How are you {name} ? Number {number} is a ünïcödé text." for number in range(50) for name in ("😁", "Ann", "Bob")]


def _bpe():
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def train_from_files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "texts.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(TEXTS))
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.train([path], trainers.BpeTrainer(vocab_size=150, special_tokens=["[UNK]"]))
        return tokenizer.get_vocab_size(), tokenizer.encode("How are you").tokens


def save_and_load():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tokenizer.json")
        _bpe().save(path)
        return Tokenizer.from_file(path).encode("Hello, y'all!").ids


def encode():
    output = _bpe().encode("Hello, y'all! How are you 😁 ?")
    print(output.tokens, output.ids)
    return [output.tokens, output.ids, output.offsets]


def pairs_with_a_template():
    tokenizer = _bpe()
    ends = [(word, tokenizer.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    template = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends)
    tokenizer.post_processor = template
    output = tokenizer.encode("Hello, y'all!", "How are you 😁 ?")
    return [output.tokens, output.type_ids]


def batches_with_padding():
    tokenizer = _bpe()
    tokenizer.enable_padding(pad_id=3, pad_token="[PAD]")
    tokenizer.enable_truncation(12)
    return [[output.ids, output.attention_mask] for output in tokenizer.encode_batch(TEXTS[:40])]


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]"], show_progress=False))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer.decode(tokenizer.encode("ünïcödé text").ids)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=100, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    return "".join(tokenizer.encode("Hello, you").tokens)


def byte_level():
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(TEXTS, vocab_size=300, show_progress=False)
    return tokenizer.decode(tokenizer.encode("😁 ünïcödé").ids)


def added_tokens():
    tokenizer = _bpe()
    tokenizer.add_tokens([AddedToken("ünïcödé", single_word=True)])
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer.encode("a ünïcödé text<end>").tokens


def in_processes():
    tokenizer = _bpe()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(_count, [(tokenizer.to_str(), text) for text in TEXTS[:4]])


def _count(work):
    return len(Tokenizer.from_str(work[0]).encode(work[1]).ids)
