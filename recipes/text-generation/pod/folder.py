"""The model's folder: where it is, and what is loaded out of it. Only files of that folder, and of them only
data.

Apart from generating, which is about one call.
"""

import errno
import os
from pathlib import Path

import torch
from hob_pod import Fault
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

#: What recipe.toml asks to read, and the folder in there that is used unless TEXT_MODEL names another.
MODELS, DEFAULT = "/srv/models", "text-generation"

#: Nothing but the folder's own files, none of them code: pickles run what is in them, and so does a model's
#: own Python.
OWN_FILES_ONLY = {"local_files_only": True, "trust_remote_code": False}

# A bar is nothing for a log.
logging.disable_progress_bar()


def find():
    """The folder that the operator gave. Raises Fault if no model is in it."""
    named = os.environ.get("TEXT_MODEL", "")
    folder = Path(MODELS, named or DEFAULT)
    said = f"TEXT_MODEL says {named!r}" if named else "TEXT_MODEL is not set"
    if not folder.is_dir():
        raise Fault(
            "model_missing",
            f"there is no folder {folder} that this pod may read ({said}); wanted one with a model of transformers",
            f"put the model there, or set TEXT_MODEL for `hob serve` (or `hob call`) to the name of a folder in {MODELS}; "
            "`hob grant RECIPE` shows what the pod may read",
        )
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        raise lacks(folder, "config.json", names, "copy the whole folder that `save_pretrained` or the hub made")
    if not any(name.endswith(".safetensors") for name in names):
        hint = "save it as safetensors: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)` where you trust it"
        raise lacks(folder, "*.safetensors", names, hint)
    if not any(name.startswith(("tokenizer", "vocab", "spiece")) for name in names):
        raise lacks(folder, "the tokenizer's files (tokenizer.json, ...)", names, "add what `save_pretrained` of its tokenizer writes")
    return folder


def lacks(folder, what, names, hint):
    found = ", ".join(names[:20]) or "nothing"
    return Fault("model_missing", f"the model's folder {folder} lacks {what}: found {found}", hint)


def load(folder):
    """The tokenizer, and the model on the device that there is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Half the precision is a GPU's trade; many CPUs compute it slower than the whole.
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **OWN_FILES_ONLY)
        model, told = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **OWN_FILES_ONLY
        )
    except (AttributeError, EOFError, ImportError, KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise
        raise broken(folder, f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:
        # torch has no class of its own for a CPU's memory; the runner knows its words.
        if "memory" in str(error).lower() or "allocat" in str(error).lower():
            raise
        raise broken(folder, str(error)) from error
    # transformers would fill them with random numbers, and warn.
    missing = sorted(told["missing_keys"])
    if missing:
        raise broken(folder, f"its files lack {len(missing)} of the weights, e.g. {', '.join(missing[:3])}")
    return tokenizer, model.to(device).eval()


def broken(folder, why):
    return Fault(
        "recipe_failed",
        f"the model in {folder} cannot be used: {why}",
        "wanted a causal language model that transformers knows without code of the model's own, with every file whole: "
        "compare the files with where they came from",
    )
