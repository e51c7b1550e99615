"""The package that an author of a pod imports: `Blob`, `Result`, `Fault`, `progress`, `cancelled`,
`time_left`; for sessions `session`, `checkpoint`.

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
                                                # `hob_pod.Result(value, blobs)` if there may be no blobs

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

        def restore(self, data):                # after `load`, in the next pod: the bytes or the dict
            self.count = data["count"]

        def close(self): ...                    # optional: the session is closed for good

The host asks for the state between calls; inside a long operation `hob_pod.checkpoint()` sends it.

Calls. The runner calls one operation at a time, on the main thread. With `concurrency` above 1, plain methods
run in that many threads at a time, and async methods as tasks of the loop.

Failures. An exception of a method becomes a fault with type and traceback; `raise hob_pod.Fault(...)` says it
better. `sys.exit` is such a failure too: it ends the work of one caller, and not the pod. An exception of a
batch is the fault of every caller in it, and the host runs the batch again in halves.

Cancelling. The exception `hob_pod.Cancelled` interrupts a cancelled operation where it is (a BaseException,
so that `except Exception` lets it pass). Native code that cannot be interrupted should call
`hob_pod.cancelled()` in its callbacks. A batch is cancelled when all of its callers have left. In a batch,
`time_left()` is that of the caller whose deadline is nearest.

State. Each work runs in a copy of the context as `load` left it, so that one caller's context variables and
decimal contexts do not reach the next. What `sys.settrace` and `sys.setprofile` set is always reset after a
work. If works come one at a time (and have no session), the working folder, `sys.stdout`, `sys.stderr`, the
alarm and the recursion limit are reset as well. Globals, the environment, thread-locals, random generators,
locale, warnings and umask belong to the process, and stay as they are left.

Threads and tasks. A thread belongs to the work that started it (`progress`). A task that an async method
leaves in the background (`asyncio.create_task`; keep a reference) runs while the pod waits and while async
methods run, but not while a plain method runs; with `concurrency` above 1 it always runs. It is cancelled
when the pod ends, which may happen when the pod is idle: finish what must be done before the answer.

Printing is fine: the host keeps it as the log.
"""

from .asks import cancelled, progress, time_left
from .blob import Blob, Result
from .faults import Cancelled, Fault
from .residency import gpu, lever
from .sessions import checkpoint, checkpoint_due, session

__all__ = ["Blob", "Cancelled", "Fault", "Result", "cancelled", "checkpoint", "checkpoint_due", "gpu", "lever", "progress", "session"]
__all__ += ["time_left"]
