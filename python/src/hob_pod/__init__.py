"""What an author of a pod imports: `Blob`, `Result`, `Fault`, `progress`, `cancelled`, `time_left`; for
sessions `session`, `checkpoint`.

A pod is a class, named as `entry = "module:Class"` in `recipe.toml`. Each operation is a public method of it
with the operation's name (`-` and `.` become `_`):

    import hob_pod

    class Embedder:
        def load(self, models):                 # optional; models: {name: path}. Slow work belongs here
            # models.folder is the folder of all models, for loaders that want a folder
            self.model = open_model(models["minilm.onnx"])

        def unload(self):                       # optional: frees what `load` made, for others to use
            self.model = None

        def embed(self, input):                 # input: the call's JSON object, checked against its schema
            for done, text in enumerate(input["texts"]):
                hob_pod.progress(done=done, total=len(input["texts"]))
                ...
            return {"embeddings": vectors}      # docs/values.md: dates become text, arrays lists, ...

        def resize(self, input, blobs):         # a parameter named `blobs` receives {name: Blob}
            pixels = blobs["image"].numpy("uint8", (input["height"], input["width"], 3))
            return {"size": 64}, {"image": hob_pod.Blob(small, "image/raw")}
                                                # `hob_pod.Result(value, blobs)` where there may be none

        def transcribe(self, input, blobs):     # with `streaming = true`: each yield is a chunk,
            for piece in decode(blobs["audio"].data):
                yield {"text": piece}
            return {"pieces": 12}               # and the return value is the answer

        async def ask(self, input): ...         # async methods and generators run on one event loop per pod

        def embed_many(self, inputs):           # with `batch`: a list of inputs to a list of results,
            return self.model(inputs)           # in the same order; an exception among the results is the
                                                # fault of that caller alone

With `[pod.session]` in `recipe.toml` a pod may belong to a session (`hob_pod.session()` is its name), and
then:

        def checkpoint(self):                   # optional: the state, as bytes or as a dict that becomes JSON
            return {"count": self.count}

        def restore(self, data):                # after `load`, in a pod that follows: the bytes or the dict
            self.count = data["count"]

        def close(self): ...                    # optional: the session is closed for good

The host asks for the state between calls; inside a long operation it goes where `hob_pod.checkpoint()` is
called.

The runner calls one operation at a time, on the main thread. With `concurrency` above 1, plain methods run in
so many threads at a time, async ones as tasks of the loop. What a method raises becomes a fault with type and
traceback; `raise hob_pod.Fault(...)` says it better. `sys.exit` is such a failure too: it ends the work of
one caller and no pod. What it raises for a batch is every caller's fault, and the host runs the batch again
in halves. A cancelled operation is interrupted where it is by the exception `hob_pod.Cancelled` (a
BaseException, so that `except Exception` lets it pass); native code that cannot be interrupted should look at
`hob_pod.cancelled()` from its callbacks.

Each work runs in a copy of the context as `load` left it, so that context variables and decimal contexts of
one caller are not found by the next. Between works that come one at a time (and are of no session) the
working folder, `sys.stdout`, `sys.stderr`, the alarm and the recursion limit are put back, and always what
`sys.settrace` and `sys.setprofile` set; globals, the environment, thread-locals, random generators, locale,
warnings and umask are the process's, and stay as they are left. A thread belongs to the work that started it
(`progress`). A task that an async method leaves in the background (`asyncio.create_task`; keep a reference)
goes on while the pod waits and while async methods run, not while a plain one does; with `concurrency` above
1 always. It is cancelled when the pod ends, which may be when it is idle: what must be done is done before
the answer.

A batch is cancelled when all of its callers left, and `time_left()` is that of the caller whose deadline is
nearest. Printing is fine: the host keeps it as the log.
"""

from .asks import cancelled, progress, time_left
from .blob import Blob, Result
from .faults import Cancelled, Fault
from .residency import gpu, lever
from .sessions import checkpoint, checkpoint_due, session

__all__ = ["Blob", "Cancelled", "Fault", "Result", "cancelled", "checkpoint", "checkpoint_due", "gpu", "lever", "progress", "session"]
__all__ += ["time_left"]
