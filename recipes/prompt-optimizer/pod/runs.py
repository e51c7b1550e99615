"""One run of MIPROv2, which has no contact with the outside world itself.

MIPROv2 is one long call that reports nothing until it ends. Here it runs in a thread of its own. Its requests
(for an answer of a language model) and its news (a candidate) come to the operation's thread. That thread
asks, keeps the answers, gives checkpoints and chunks, and can be cancelled at any of these points.
"""

import queue
import threading
import time
from concurrent.futures import Future

import dspy
import hob_pod
import programs
from answers import Samples, digest
from dspy.teleprompt import MIPROv2
from dspy.utils.callback import BaseCallback
from endpoints import PARAMETERS
from hob_pod import Fault

#: A checkpoint is given when the time since the last one is this many times what that one took. So
#: checkpoints take at most a tenth of the time, and after a kill at most that much of the answers is asked
#: again.
CHECKPOINT_SHARE = 10

#: Between two progress reports, in seconds.
REPORT_S = 0.2

#: Longest time for the thread of a stopped run to end, in seconds: a cancelled call gets two.
END_S = 1.5


class Stop(BaseException):
    """Ends MIPROv2's thread. Not an Exception: MIPROv2 counts an Exception as a wrong answer, and the run
    would go on."""


class Keeper:
    """Gives the state to the host as often as that is cheap."""

    def __init__(self):
        self.unsaved = False
        self.took = 0.0
        self.last = float("-inf")
        self.count = 0

    def wait(self):
        """Returns the seconds until the state is given; None if there is nothing to give."""
        return max(0.0, self.last + CHECKPOINT_SHARE * self.took - time.monotonic()) if self.unsaved else None

    def keep(self):
        begun = time.monotonic()
        self.count += hob_pod.checkpoint(force=True)
        self.last = time.monotonic()
        self.took = self.last - begun
        self.unsaved = False


class Engine:
    """A language model's engine for dspy (`dspy.clients.engines.base.Engine`): text in, text out."""

    def __init__(self, endpoint, parameters, asked):
        self.endpoint = endpoint
        self.parameters = parameters
        self.asked = asked

    def complete(self, request):
        body = {"model": self.endpoint.model, "messages": _messages(request)}
        for name in PARAMETERS:
            value = getattr(request.config, name, None)
            if value is not None and value != ():
                body[name] = list(value) if isinstance(value, tuple) else value
        body.update(self.parameters)
        text = self.asked(self.endpoint, body)
        usage = dspy.lm15.Usage(input_tokens=0, output_tokens=0, total_tokens=0)
        message = dspy.lm15.Message.assistant([dspy.lm15.TextPart(text)])
        return dspy.lm15.Response(id=None, model=request.model, message=message, finish_reason="stop", usage=usage)


def _messages(request):
    system = request.system
    if system is not None and not isinstance(system, str):
        system = "".join(part.text for part in system)
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": message.role, "content": message.text or ""} for message in request.messages]


def language_model(endpoint, asked):
    """Returns an endpoint as a language model of dspy's. `asked(endpoint, body)` returns the text."""
    place = endpoint.place
    engine = Engine(endpoint, place.get("parameters", {}), asked)
    settings = {"temperature": place.get("temperature", 0.0), "max_tokens": place.get("max_tokens", 1000)}
    return dspy.LM(endpoint.model, engine=engine, cache=False, num_retries=0, **settings)


class Run:
    """One run. `go()` yields each candidate as a dict; its return value is `(program, score, state)`."""

    def __init__(self, settings, endpoints, rows, answers):
        self.settings = settings
        self.endpoints = endpoints
        self.rows = rows
        self.answers = answers
        self.keeper = Keeper()
        self.samples = Samples()
        self.events = queue.SimpleQueue()
        self.jobs = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.stopped = False
        self.waiting = {}  # key -> the futures of those who wait for that answer
        self.asked = self.replayed = self.kept = 0
        self.candidates = []
        self.trials = 0
        self.reported = 0.0

    # --- in the operation's thread

    def go(self):
        threads = [threading.Thread(target=self._optimize, daemon=True)]
        threads += [threading.Thread(target=self._work, daemon=True) for _ in range(self.settings["threads"])]
        for thread in threads:
            thread.start()
        try:
            while True:
                event, *what = self._next()
                if event == "ended":
                    return what[0]
                if event == "failed":
                    raise what[0]
                if event == "answered":
                    self._answered(*what)
                else:
                    yield self._candidate(*what)
                self._report()
        except Fault:
            # The next run goes on from the answers so far.
            self._keep()
            raise
        finally:
            self._stop()
            threads[0].join(END_S)

    def _next(self):
        """Returns the next event. Meanwhile gives the state, if that is due."""
        while True:
            wait = self.keeper.wait()
            if wait == 0 or (self.keeper.unsaved and hob_pod.checkpoint_due()):
                self._keep()
                self._report(force=True)
                continue
            try:
                return self.events.get(timeout=wait)
            except queue.Empty:
                pass

    def _keep(self):
        self.keeper.keep()
        self.kept = self.asked

    def _answered(self, key, text, fault):
        if fault is not None:
            raise fault
        self.answers.put(key, text)
        self.asked += 1
        self.keeper.unsaved = True
        with self.lock:
            futures = self.waiting.pop(key)
        for future in futures:
            future.set_result(text)

    def _candidate(self, candidate):
        best = max((one["score"] for one in self.candidates if one["kind"] != "minibatch"), default=candidate["score"])
        candidate["best"] = best if candidate["kind"] == "minibatch" else max(best, candidate["score"])
        candidate["candidate"] = len(self.candidates)
        self.candidates.append(candidate)
        self.trials += self._counts(candidate)
        # A caller who gets a candidate can rely on it: all answers behind it are on the disk.
        if self.keeper.unsaved:
            self._keep()
        self._report(force=True)
        return candidate

    def _counts(self, candidate):
        """Returns whether it is one of the trials that were asked for, and not MIPROv2's evaluation of a
        candidate on all examples."""
        minibatched = self.settings["minibatch"] and self.settings["minibatch"] < self.rows[2]
        return candidate["kind"] == ("minibatch" if minibatched else "full")

    def _report(self, force=False):
        now = time.monotonic()
        if force or now >= self.reported + REPORT_S:
            self.reported = now
            hob_pod.progress(
                phase="trials" if self.candidates else "prepare",
                done=self.trials,
                total=self.settings["trials"],
                unit="trials",
                asked=self.asked,
                replayed=self.replayed,
                kept=self.kept,
                checkpoints=self.keeper.count,
                checkpoint_ms=round(self.keeper.took * 1000, 2),
            )

    def _stop(self):
        with self.lock:
            self.stopped = True
            futures = [future for futures in self.waiting.values() for future in futures]
            self.waiting = {}
        for future in futures:
            future.set_exception(Stop())
        for _ in range(self.settings["threads"]):
            self.jobs.put(None)

    # --- in threads that ask the language models

    def _work(self):
        connections = {}
        while (job := self.jobs.get()) is not None:
            endpoint, key, body = job
            if self.stopped:
                continue
            try:
                mine = connections.setdefault(id(endpoint), endpoint.fresh())
                self.events.put(("answered", key, mine.ask(body, lambda: self.stopped), None))
            except Fault as fault:
                self.events.put(("answered", key, None, fault))
            except Exception as error:
                self.events.put(("answered", key, None, Fault("recipe_failed", f"the language model could not be asked: {error!r}")))

    # --- in MIPROv2's thread, and in those that it starts for an evaluation

    def _ask(self, endpoint, body):
        temperature = body.get("temperature")
        request = digest({"place": endpoint.identity, "body": body})
        sample = self.samples.next(request, temperature)
        if temperature != 0 and endpoint.place.get("send_seed", True):
            body["seed"] = self.settings["seed"] + sample
        key = digest({"request": request, "seed": body.get("seed"), "sample": sample})
        with self.lock:
            if self.stopped:
                raise Stop
            text = self.answers.get(key)
            if text is not None:
                self.replayed += 1
                return text
            future = Future()
            is_new = key not in self.waiting
            self.waiting.setdefault(key, []).append(future)
        if is_new:
            self.jobs.put((endpoint, key, body))
        return future.result()

    def _optimize(self):
        try:
            self.events.put(("ended", self._compile()))
        except Stop:
            pass
        except Exception as error:
            fault = Fault(
                "recipe_failed",
                f"MIPROv2 ended with {type(error).__name__}: {str(error)[:1500]}",
                "mostly the language model's answers lack the fields that were asked for: a more able one, or more `max_tokens`",
            )
            self.events.put(("failed", fault))

    def _compile(self):
        settings = self.settings
        program = settings["program"]
        models = [language_model(endpoint, self._ask) for endpoint in self.endpoints]
        trainset, valset, examined = self.rows
        minibatch = settings["minibatch"]
        outputs = programs.fields(program["signature"])[1]
        optimizer = MIPROv2(
            metric=programs.metric(settings["metric"], outputs),
            metric_threshold=settings["demo_score"],
            task_model=models[0],
            prompt_model=models[-1],
            auto=None,
            num_candidates=settings["candidates"],
            max_bootstrapped_demos=settings["bootstrapped_demos"],
            max_labeled_demos=settings["labeled_demos"],
            num_threads=settings["threads"],
            # An answer without its fields counts as wrong; however many there are, the trials are meant to
            # find that out.
            max_errors=1 << 30,
            seed=settings["seed"],
        )
        with dspy.context(lm=models[0], callbacks=[_Watch(self)], disable_history=True):
            made = optimizer.compile(
                programs.build(program),
                trainset=programs.examples(program["signature"], trainset),
                valset=programs.examples(program["signature"], valset),
                num_trials=settings["trials"],
                minibatch=bool(minibatch) and minibatch < examined,
                minibatch_size=min(minibatch, examined) or 1,
                minibatch_full_eval_steps=settings["full_every"],
            )
            return programs.taken_apart(made, program), made.score, made.dump_state()


class _Watch(BaseCallback):
    """Follows evaluations: each one is of a candidate."""

    def __init__(self, run):
        self.run = run
        self.now = None
        self.count = 0

    def on_evaluate_start(self, call_id, instance, inputs):
        predictor = inputs["program"].predictors()[0]
        key = (inputs.get("callback_metadata") or {}).get("metric_key")
        self.now = {
            "kind": "baseline" if self.count == 0 else "minibatch" if key == "eval_minibatch" else "full",
            "examples": len(inputs["devset"]),
            "instructions": predictor.signature.instructions,
            "demos": len(predictor.demos),
        }
        self.run.samples.evaluation = self.count
        self.count += 1

    def on_evaluate_end(self, call_id, outputs, exception=None):
        self.run.samples.evaluation = None
        if exception is None:
            self.run.events.put(("candidate", {**self.now, "score": outputs.score}))
