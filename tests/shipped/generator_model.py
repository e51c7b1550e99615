"""Makes the tiny models that test_text_generation.py gives to the recipe, in the folder that is named.

It runs in the recipe's environment. Each token is a byte, so that most characters of a text beyond ASCII are
several.

- `learnt`: a GPT-2 that knows the texts below by heart, with a chat template; its context is 512.
- `untaught`: the same size, with random weights: most of what it says is no character.
- `pickled`, `halved`, `lacking`, `strange`: `untaught` with its weights as a pickle, cut off in the middle,
  without those of the second layer; with a configuration that names code of the model's own.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from generator_texts import TEXTS
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

CHAT = """\
{%- for message in messages %}
{%- if message.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('no role ' + message.role) }}{% endif -%}
<{{ message.role }}>{{ message.content }}
{%- endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""

#: Steps that learning by heart takes at most, and the loss at which it is over.
STEPS_MAX, LEARNT = 2_000, 0.02


def save(model, tokenizer, folder):
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def learn(model, tokenizer):
    ends = tokenizer.eos_token_id
    rows = [tokenizer(text)["input_ids"] + [ends] for text in TEXTS]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [ends] * (width - len(row)) for row in rows])
    wanted = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS_MAX):
        loss = model(tokens, labels=wanted).loss
        if loss < LEARNT:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise SystemExit(f"not learnt after {STEPS_MAX} steps: the loss is {loss}")


place = Path(sys.argv[1])
# Of so little several threads only wait for each other, on a machine that is busy.
torch.set_num_threads(1)
torch.manual_seed(11)
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(["<end>", *letters])}, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
sizes = {"n_positions": 512, "n_embd": 64, "n_layer": 2, "n_head": 2, "attn_pdrop": 0, "embd_pdrop": 0, "resid_pdrop": 0}
config = GPT2Config(vocab_size=len(letters) + 1, bos_token_id=0, eos_token_id=0, **sizes)
model = GPT2LMHeadModel(config)
untaught = save(model, tokenizer, place / "untaught")
learn(model, tokenizer)
tokenizer.chat_template = CHAT
save(model, tokenizer, place / "learnt")

pickled = shutil.copytree(untaught, place / "pickled")
torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
(pickled / "model.safetensors").unlink()

halved = shutil.copytree(untaught, place / "halved") / "model.safetensors"
halved.write_bytes(halved.read_bytes()[: halved.stat().st_size // 2])

lacking = shutil.copytree(untaught, place / "lacking") / "model.safetensors"
weights = load_file(lacking)
save_file({name: weight for name, weight in weights.items() if ".h.1." not in name}, lacking, {"format": "pt"})

strange = shutil.copytree(untaught, place / "strange")
told = json.loads((strange / "config.json").read_text())
code = {name: f"strange.{name}" for name in ("AutoConfig", "AutoModelForCausalLM")}
told.update(model_type="strange", architectures=["Strange"], auto_map=code)
(strange / "config.json").write_text(json.dumps(told))
(strange / "strange.py").write_text("raise SystemExit('code of the model was run')")
