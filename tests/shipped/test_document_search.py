"""The recipe `document-search`: found is what is meant, searches go before whoever fills the index, and no
end of a process loses it."""

import http.client
import json
import os
import signal
import socket
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import PATIENCE, RECIPES, ROOT, Failed, Hob, Server, alone
from search_texts import DOCUMENTS, QUESTIONS, SUBJECTS, many

RECIPE = "hob/document-search"

#: Differences of a cosine to sentence-transformers' own: seven digits of 384 numbers each, and six decimals
#: of the score.
COSINE_OFF_MAX = 2e-6


class Searched(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hob = Hob()
        cls.server = Server(cls.hob, RECIPES / "document-search")
        cls.addClassCleanup(lambda: cls.server.end())

    def tearDown(self):
        # Each is a pod.
        for session in self.hob.run("sessions"):
            self.hob.run("sessions", "close", RECIPE, session["name"])

    def call(self, operation, input, session="index"):
        return self.hob.call(RECIPE, operation, input, "--session", session)

    def refused(self, operation, input, **more):
        with self.assertRaises(Failed) as failed:
            self.call(operation, input, **more)
        return failed.exception

    def ask(self, method, path, body=None):
        """The server's answer, without a process of the program's between: these are to be quick."""
        connection = http.client.HTTPConnection("hob")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(self.server.told["socket"])
        # Closed with its answer.
        connection.request(method, path, body, {"connection": "close"})
        return connection.getresponse()

    def events(self, operation, input, priority):
        """Each event of a call, as the server tells it; the last one is its end."""
        body = {"recipe": RECIPE, "operation": operation, "input": input, "session": "index", "priority": priority}
        if operation == "add":
            # Within a class the nearer deadline goes first, and that of a search is five minutes: this is
            # about the classes.
            body["deadline_ms"] = 240_000
        with self.ask("POST", "/v1/calls", json.dumps(body)) as answer:
            for line in answer:
                if line.strip():
                    yield json.loads(line)

    def outcome(self, *words):
        last = list(self.events(*words))[-1]
        self.assertEqual(last["event"], "outcome", last)
        return last["output"]

    def begun(self, documents):
        """An `add` in bulk that has put in some of its documents, and not all."""
        adding = self.events("add", {"documents": documents}, "bulk")
        for event in adding:
            if event["event"] == "progress" and event["data"].get("done", 0) > 0:
                self.assertLess(event["data"]["done"], len(documents))
                return adding
        raise AssertionError("it ended without progress")

    def keep(self):
        with self.ask("POST", f"/v1/recipes/{RECIPE}/sessions/index/checkpoint") as answer:
            self.assertEqual(answer.status, 200, answer.read())

    def kill_pod(self):
        """Of the session of this test: those of others were closed, and may be on their way out.

        One that was never asked is none of a session's: it is a trial, whether the recipe's pods can be
        forked.
        """
        with self.ask("GET", "/v1/pods") as answer:
            newest = min((pod for pod in json.load(answer) if pod["asks"] > 0), key=lambda pod: pod["age_ms"])
        os.kill(newest["pid"], signal.SIGKILL)

    def test_what_is_meant_is_found(self):
        told = self.call("add", {"documents": DOCUMENTS})
        self.assertEqual(told, {"added": 35, "replaced": 0, "unchanged": 0, "documents": 35})
        right = 0
        for question, wanted in QUESTIONS.items():
            found = self.call("search", {"query": question, "k": 5})["results"]
            self.assertEqual(len(found), 5)
            self.assertEqual(found, sorted(found, key=lambda result: -result["score"]))
            right += found[0]["id"] == wanted
            self.assertIn(wanted, [result["id"] for result in found[:2]], question)
        self.assertGreaterEqual(right, len(QUESTIONS) - 1)
        # Word for word it is the document itself.
        found = self.call("search", {"query": DOCUMENTS[7]["text"], "k": 1})["results"]
        self.assertEqual(found, [{**DOCUMENTS[7], "score": found[0]["score"]}])
        self.assertAlmostEqual(found[0]["score"], 1, delta=1e-5)

    def test_scores_are_those_of_the_reference(self):
        """Texts of tests/reference, whose vectors sentence-transformers made."""
        texts = json.loads((ROOT / "tests/reference/minilm.json").read_text())["texts"]
        texts = [text for text in {text["text"]: text for text in texts}.values() if text["text"].strip()]
        query, documents = texts[0], texts[1:]
        self.call("add", {"documents": [{"id": str(number), "text": text["text"]} for number, text in enumerate(documents)]})
        wanted = {str(number): sum(map(float.__mul__, query["vector"], text["vector"])) for number, text in enumerate(documents)}
        found = self.call("search", {"query": query["text"], "k": 50})["results"]
        self.assertEqual(len(found), len(documents))
        for result in found:
            self.assertAlmostEqual(result["score"], wanted[result["id"]], delta=COSINE_OFF_MAX)
        self.assertEqual(found[0]["id"], max(wanted, key=wanted.get))

    def test_filters(self):
        self.call("add", {"documents": DOCUMENTS})
        query = {"query": "It went wrong in the end.", "k": 50}
        for filter, count in [
            ({}, 35),
            ({"subject": "sport"}, 5),
            ({"subject": ["sport", "money"], "number": 4}, 2),
            ({"long": True, "subject": "space"}, sum(len(text) > 55 for text in SUBJECTS["space"])),
            ({"subject": "nothing"}, 0),
            ({"colour": None}, 0),
        ]:
            found = self.call("search", {**query, "filter": filter})["results"]
            self.assertEqual(len(found), count, filter)
            for result in found:
                for key, value in filter.items():
                    self.assertIn(result["metadata"][key], value if isinstance(value, list) else [value])

    def test_again_in_its_place_and_out(self):
        self.call("add", {"documents": DOCUMENTS})
        self.assertEqual(self.call("add", {"documents": DOCUMENTS})["unchanged"], 35)
        self.assertEqual(self.call("status", {})["revision"], 2)
        new = {"id": "sport-0", "text": "Fresh bread smells wonderful in the morning."}
        told = self.call("add", {"documents": [new, {**DOCUMENTS[0], "metadata": {"subject": "baking"}}, DOCUMENTS[1]]})
        self.assertEqual(told, {"added": 0, "replaced": 2, "unchanged": 1, "documents": 35})
        found = self.call("search", {"query": "the scent of a bakery", "k": 1})["results"]
        self.assertEqual(found, [{**new, "metadata": {}, "score": found[0]["score"]}])
        self.assertEqual(self.call("search", {"query": "x", "filter": {"subject": "baking"}})["results"][0]["id"], "cooking-0")
        told = self.call("remove", {"ids": ["sport-0", "nowhere", "sport-0", "space-1"]})
        self.assertEqual(told, {"removed": 2, "missing": ["nowhere"], "documents": 33})
        found = self.call("search", {"query": "the scent of a bakery", "k": 50})["results"]
        self.assertEqual(len(found), 33)
        self.assertFalse({"sport-0", "space-1"} & {result["id"] for result in found})
        status = self.call("status", {})
        self.assertEqual((status["documents"], status["model"], status["dimensions"]), (33, "all-MiniLM-L6-v2", 384))
        # Two indexes know nothing of each other.
        self.assertEqual(self.call("search", {"query": "bread"}, session="empty"), {"results": [], "documents": 0, "revision": 0})

    def test_what_is_wrong_is_said(self):
        twice = self.refused("add", {"documents": [DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0]]})
        self.assertEqual(twice.code, "invalid_input")
        self.assertIn("`cooking-0`", twice.fault["message"])
        self.assertIn("documents[2]", twice.fault["message"])
        long = self.refused("add", {"documents": [{"id": "a", "text": "x", "metadata": {"note": "y" * 70_000}}]})
        self.assertEqual(long.code, "too_large")
        self.assertIn("65536", long.fault["message"])
        for operation, input in [
            ("add", {"documents": []}),
            ("add", {"documents": [{"id": "a"}]}),
            ("add", {"documents": [{"id": "a", "text": ""}]}),
            ("add", {"documents": [{"id": "a", "text": "b", "metadata": {"c": [1]}}]}),
            ("search", {"query": "a", "k": 0}),
            ("search", {"query": "a", "filter": {"b": []}}),
            ("remove", {"ids": []}),
        ]:
            self.assertEqual(self.refused(operation, input).code, "invalid_input", (operation, input))
        with self.assertRaises(Failed) as failed:
            self.hob.call(RECIPE, "search", {"query": "a"})
        self.assertEqual(failed.exception.code, "session_required")
        self.assertEqual(self.call("status", {})["documents"], 0)

    def test_searches_go_first_while_it_is_filled(self):
        documents = many(1_200)
        share = len(documents) // 4

        def search(priority):
            return self.outcome("search", {"query": "a bird in the air", "k": 3}, priority)

        first = self.begun(documents[:share])
        # Three more wait their turn all the time, each with one ask: whoever came last would have to wait for
        # them all.
        with ThreadPoolExecutor(5) as pool:
            rest = [self.events("add", {"documents": documents[at : at + share]}, "bulk") for at in range(share, len(documents), share)]
            adding = [pool.submit(list, events) for events in [first, *rest]]
            patient = pool.submit(search, "bulk")
            seen = [search("interactive")]
            while seen[-1]["documents"] < 3 * share:
                seen.append(search("interactive"))
            ends = [future.result()[-1] for future in adding]
        self.assertEqual([end["event"] for end in ends], ["outcome"] * 4)
        during = [found for found in seen if found["documents"] < 3 * share]
        self.assertGreaterEqual(len(during), 5, "searches were answered while the index was filled")
        # Between two searches the index changed by what had begun, and by what the first let in when it
        # ended; never by all that waited.
        steps = [later["revision"] - earlier["revision"] for earlier, later in zip(during, during[1:])]
        self.assertLessEqual(max(steps), 3, steps)
        # One in bulk came last: those who fill the index have the nearer deadlines.
        self.assertGreater(patient.result()["revision"], during[0]["revision"] + 10)
        self.assertGreater(patient.result()["documents"], len(documents) - share)
        # And searches held up nobody for good.
        self.assertEqual(self.call("status", {})["documents"], len(documents))

    def test_a_pod_that_is_killed_while_it_is_filled_loses_nothing(self):
        documents = many(3_000)
        adding = self.begun(documents)
        # Kept with a part of them: the next pod begins with that, and what came after would be missing.
        self.keep()
        kept = self.outcome("status", {}, "interactive")["documents"]
        self.assertLess(kept, 2_500)
        while self.outcome("status", {}, "interactive")["documents"] < kept + 100:
            pass
        self.kill_pod()
        *before, last = list(adding)
        self.assertEqual(last["event"], "outcome", last)
        self.assertEqual(last["output"], {"added": 3_000, "replaced": 0, "unchanged": 0, "documents": 3_000})
        self.assertIn("resumed", [event["data"].get("session") for event in before if event["event"] == "progress"])
        missing = self.call("remove", {"ids": [document["id"] for document in documents]})["missing"]
        self.assertEqual(missing, [])

    def test_it_outlives_its_pod_and_its_host(self):
        def search():
            found = self.call("search", {"query": "a bird in the air", "k": 20})
            return found["results"], found["documents"], found["revision"]

        self.call("add", {"documents": DOCUMENTS})
        self.call("remove", {"ids": ["music-0"]})
        self.keep()
        before = search()
        self.assertEqual(before[1:], (34, 3))
        self.kill_pod()
        self.assertEqual(search(), before)
        self.server.kill()
        self.server.begin()
        self.assertEqual(search(), before)
        # A host that ends keeps all of it by itself.
        self.call("remove", {"ids": ["music-1"]})
        self.server.end()
        self.server.begin()
        self.assertEqual(search()[1], 33)

    def test_one_environment_and_one_model_with_sentence_embeddings(self):
        other, own = RECIPES / "sentence-embeddings", RECIPES / "document-search"
        for file in ("pod/requirements.lock", "glue/wit/glue.wit"):
            self.assertEqual((other / file).read_bytes(), (own / file).read_bytes(), file)

        def digests(folder):
            return [line for line in (folder / "recipe.toml").read_text().splitlines() if line.startswith("sha256")]

        self.assertEqual(digests(other), digests(own))

    def test_the_index_by_itself(self):
        self.call("status", {})
        self.assertIn("Ran 7 tests", alone("onnxruntime", "document-search", "index_alone.py"))


if __name__ == "__main__":
    unittest.main()
