"""The model's folder: finds it, and loads the model and the tokenizer from it. Only files of that folder are
read, and of them only data."""

import errno
import os
from pathlib import Path

import torch
from hob_pod import Fault
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

#: The folder that recipe.toml asks to read, and the folder in it that is used unless TEXT_MODEL names
#: another.
MODELS, DEFAULT = "/srv/models", "text-generation"

#: Only the folder's own files, and no code: pickles run what is in them, and so does a model's own Python.
OWN_FILES_ONLY = {"local_files_only": True, "trust_remote_code": False}

# A log should have no progress bar.
logging.disable_progress_bar()


def find():
    """Returns the folder that the operator granted. Raises Fault if no model is in it."""
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
    """Returns the tokenizer, and the model on the device that is available."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Half precision pays on a GPU; many CPUs compute it more slowly than full precision.
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
        # torch has no error class for a CPU's memory; the runner recognises its text.
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
