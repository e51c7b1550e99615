"""A hostile pod: does what it is asked to of the acts in `table`, and says of each what came of it.

Apart from the table, because this part is the same wherever it runs: as a pod, and as a plain program, where
the same functions must succeed, so that a denial cannot come from an act that never works.

    python acts.py table               what is to be tried, and how it must fail, as JSON
    python acts.py try  TARGETS        tries all of it in this process's children; TARGETS is JSON
    python acts.py victim FOLDER       what there is to attack: prints its targets as JSON, and lives until its input ends
"""

import errno
import json
import os
import select
import signal
import sys

#: No act takes longer, in seconds; one that hangs was not denied.
ACT_S = 5


def attempt(name, targets):
    """What became of one act, done by a child process: the name of an errno, or what it got."""
    import table

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ACT_S)
        os.write(writing, outcome(table.ACTS[name].function, targets).encode()[:4000])
        os._exit(0)
    os.close(writing)
    said = b""
    while select.select([reading], [], [], ACT_S + 1)[0]:
        piece = os.read(reading, 4096)
        if not piece:
            break
        said += piece
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    return said.decode() or f"no answer, status {status}"


def outcome(act, targets):
    try:
        return f"ALLOWED: {act(targets)}"
    except OSError as error:
        return errno.errorcode.get(error.errno, f"no errno: {error}")
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def attempt_all(targets):
    import table

    # Outside of a pod only what somebody may do there: the rest gives the reason why not.
    meant = [name for name, act in table.ACTS.items() if not targets.get("tame") or act.outside in ("any", "root")]
    return {name: attempt(name, targets) for name in meant}


class Pod:
    def run(self, input):
        if input.get("pause"):
            import time

            mine = os.path.join(os.environ["TMPDIR"], "mine")
            with open(mine, "w") as file:
                file.write("another pod's")
            time.sleep(input["pause"])
        if "targets" not in input:
            return {"pid": os.getpid(), "scratch": os.environ["TMPDIR"]}
        # In this process, which holds what it inherited.
        import table

        held = {name: outcome(act, input["targets"]) for name, act in table.HELD.items()}
        return {"acts": attempt_all(input["targets"]), "held": held}


def victim(folder):
    import ctypes
    import socket

    libc = ctypes.CDLL(None, use_errno=True)
    targets = {"folder": folder, "pid": os.getpid(), "secret": os.path.join(folder, "secret")}
    with open(targets["secret"], "w") as file:
        file.write("a secret")
    held = []
    for key, address in (("path", os.path.join(folder, "socket")), ("abstract", f"\0hob-test-{os.getpid()}")):
        for kind, name in ((socket.SOCK_STREAM, ""), (socket.SOCK_DGRAM, "-datagrams")):
            held.append(socket.socket(socket.AF_UNIX, kind))
            held[-1].bind(address + name)
            if kind == socket.SOCK_STREAM:
                held[-1].listen(64)
        targets[key] = address
    for key, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        held.append(socket.socket(socket.AF_INET, kind))
        held[-1].bind(("127.0.0.1", 0))
        targets[key] = held[-1].getsockname()[1]
    held[-2].listen(64)
    targets["shm_key"] = 0x686F0000 + os.getpid() % 0xFFFF
    segment = libc.shmget(targets["shm_key"], 4096, 0o1600)
    assert segment >= 0, os.strerror(ctypes.get_errno())
    for place in ("/tmp", "/dev/shm"):
        targets[place] = f"{place}/hob-test-{os.getpid()}"
        with open(targets[place], "w") as file:
            file.write("not a pod's")
    print(json.dumps(targets), flush=True)
    sys.stdin.read()
    libc.shmctl(segment, 0, None)  # IPC_RMID
    for place in ("/tmp", "/dev/shm"):
        os.unlink(targets[place])


def main(words):
    import table

    if words[0] == "table":
        print(json.dumps({name: [act.denied, act.outside] for name, act in table.ACTS.items()}))
    elif words[0] == "victim":
        victim(words[1])
    else:
        print(json.dumps(attempt_all(json.loads(words[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
