"""Text from a transformers model, token by token.

transformers' `generate` runs the model in a thread of its own. The call takes tokens from it one at a time,
so that a caller that is slow, or gone, stops it after one token.
"""

import copy
import secrets
from queue import Full, Queue
from threading import Event, Thread

import folder
import torch
from hob_pod import Fault, cancelled
from jinja2 import TemplateError
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from words import Stops, Words

MAX_NEW_TOKENS = 256

#: Range of random seeds: every JSON reader keeps such numbers exactly.
SEEDS = 2**53

#: Between two checks of the model's thread whether its token is still wanted, in seconds.
LOOK = 0.05


class Generator:
    """The operations of `hob/text-generation`."""

    def load(self, models):
        """Loads the operator's model; it stays for all calls."""
        self.folder = folder.find()
        self.tokenizer, self.model = folder.load(self.folder)
        text = self.model.config.get_text_config()
        self.context = getattr(text, "max_position_embeddings", None)
        self.ends = ends(self.model.generation_config.eos_token_id) | ends(self.tokenizer.eos_token_id)

    def describe(self, input):
        """Returns what is loaded."""
        return {
            "model": self.folder.name,
            "architecture": type(self.model).__name__,
            "parameters": self.model.num_parameters(),
            "device": self.model.device.type,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "context": self.context,
            "chat": self.tokenizer.chat_template is not None,
        }

    def generate(self, input):
        """Yields chunks `{"text", "tokens"}`: text that is final, and the number of tokens so far. Returns
        the whole text."""
        prompt = self._prompt(input)
        room = input.get("max_new_tokens", MAX_NEW_TOKENS)
        if self.context is not None:
            if len(prompt) >= self.context:
                text = f"the prompt has {len(prompt)} tokens, and the model's context {self.context}: wanted less than that"
                raise Fault("invalid_input", text, "shorten the prompt, or leave out the oldest messages")
            room = min(room, self.context - len(prompt))
        settings, seed = self._settings(input, room)
        words, stops = Words(self.tokenizer), Stops(input.get("stop", []))
        said, made, reason = [], 0, "length"
        run = Run(self.model, prompt, settings)
        try:
            for token in run.tokens():
                if cancelled():
                    raise Fault("cancelled", f"stopped after {made} tokens because the call was cancelled")
                made += 1
                text = stops.push(words.push(token))
                if text:
                    said.append(text)
                    yield {"text": text, "tokens": made}
                if stops.stopped or token in self.ends:
                    reason = "stop"
                    break
        finally:
            run.stop()
        if not stops.stopped:
            text = stops.push(words.rest())
            text += stops.rest()
            if stops.stopped:
                reason = "stop"
            if text:
                said.append(text)
                yield {"text": text, "tokens": made}
        output = {"text": "".join(said), "finish_reason": reason, "usage": {"prompt_tokens": len(prompt), "completion_tokens": made}}
        return output if seed is None else {**output, "seed": seed}

    def _prompt(self, input):
        """Returns the tokens from which the model goes on."""
        if "prompt" in input:
            tokens = self.tokenizer(input["prompt"])["input_ids"]
            if not tokens:
                text = "the model's tokenizer makes no token of the prompt"
                raise Fault("invalid_input", text, "wanted a prompt with words that it knows")
            return tokens
        if self.tokenizer.chat_template is None:
            text = f"the tokenizer of {self.folder.name} has no chat template, which says how `messages` are written down"
            raise Fault("invalid_input", text, "give `prompt` instead, or take a model that was trained for chats")
        try:
            return self.tokenizer.apply_chat_template(input["messages"], add_generation_prompt=True, return_dict=True)["input_ids"]
        except TemplateError as error:
            text = f"the model's chat template does not take these messages: {error}"
            raise Fault("invalid_input", text, "wanted roles in the order that the model was trained with") from error

    def _settings(self, input, room):
        """Returns the model's own settings with the caller's, and the seed if tokens are drawn at random."""
        settings = copy.deepcopy(self.model.generation_config)
        settings.update(max_new_tokens=room, max_length=None, min_length=0, min_new_tokens=None, num_beams=1, num_return_sequences=1)
        settings.update(eos_token_id=sorted(self.ends) or None, pad_token_id=min(self.ends, default=0))
        temperature = input.get("temperature", 0)
        if temperature == 0:
            settings.update(do_sample=False, temperature=None, top_p=None, top_k=None)
            return settings, None
        settings.update(do_sample=True, temperature=float(temperature), top_p=float(input.get("top_p", 1)), top_k=input.get("top_k", 0))
        # Never torch's initial seed: all pods that are forked from one zygote would draw the same.
        seed = input.get("seed", secrets.randbelow(SEEDS))
        torch.manual_seed(seed)
        return settings, seed


def ends(told):
    """Returns the tokens that end an answer, from a setting with none, one or several."""
    return set() if told is None else {told} if isinstance(told, int) else set(told)


class Run(BaseStreamer, StoppingCriteria):
    """One run of the model in a thread; it makes a token once the one before was taken."""

    def __init__(self, model, prompt, settings):
        self.model, self.prompt, self.settings = model, prompt, settings
        self.queue = Queue(1)
        self.over = Event()
        self.begun = False
        self.thread = Thread(target=self._run, name="model", daemon=True)

    def tokens(self):
        """Yields each token. Raises the thread's error."""
        self.thread.start()
        while True:
            kind, value = self.queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    def stop(self):
        """Ends the run, at the latest after the current token."""
        self.over.set()
        if self.thread.ident is not None:
            self.thread.join()

    def _run(self):
        try:
            prompt = torch.tensor([self.prompt], device=self.model.device)
            self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=self.settings,
                streamer=self,
                stopping_criteria=StoppingCriteriaList([self]),
            )
            self._give("end", None)
        except Exception as error:
            self._give("error", error)

    def _give(self, kind, value):
        while not self.over.is_set():
            try:
                self.queue.put((kind, value), timeout=LOOK)
                return
            except Full:
                continue

    # --- called by transformers

    def put(self, value):
        # The first call has the prompt.
        if self.begun:
            self._give("token", int(value[0]))
        self.begun = True

    def end(self):
        pass

    def __call__(self, input_ids, scores, **more):
        return torch.full((input_ids.shape[0],), self.over.is_set(), dtype=torch.bool, device=input_ids.device)
