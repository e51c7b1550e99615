"""httpx, in the order of its quick start: get, parameters, texts, JSON, forms, files, status, streams,
clients, async.

A server tells what it was asked: one on the loopback for `get`, as anyone would write it, and one on a Unix
socket for the others.
"""

import asyncio
import contextlib
import http.server
import json
import os
import socketserver
import tempfile
import threading

import httpx


class _Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status = int(self.path.rpartition("/")[2]) if "/status/" in self.path else 200
        if self.path == "/redirect":
            self.send_response(301)
            self.send_header("location", "/landed")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        names = ("content-type", "cookie", "x-token", "authorization")
        headers = {name: self.headers[name] for name in names if name in self.headers and "boundary" not in self.headers[name]}
        told = {"method": self.command, "path": self.path, "headers": headers, "body": len(body)}
        answer = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("set-cookie", "seen=yes")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_DELETE = do_GET

    def address_string(self):
        return "somebody"

    def log_message(self, *words):
        pass


@contextlib.contextmanager
def _serving(server):
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def _socket():
    """The path of a socket where the server answers."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        with _serving(_Unix(path, _Echo)):
            yield path


@contextlib.contextmanager
def _client(**more):
    with _socket() as path, httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://echo", **more) as client:
        yield client


def get_from_the_loopback():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    with _serving(server):
        answer = httpx.get(f"http://127.0.0.1:{server.server_port}/get")
        return [answer.status_code, answer.headers["content-type"], answer.json()]


def parameters_in_the_address():
    with _client() as client:
        answer = client.get("/get", params={"key1": "value1", "key2": ["value2", "value3"]})
        return [str(answer.url), answer.json()]


def forms_files_and_json():
    with _client() as client:
        file = ("a.txt", b"text", "text/plain")
        sent = [{"data": {"a": "ü", "b": ["1", "2"]}}, {"json": {"a": 1}}, {"content": b"raw"}, {"files": {"upload": file}}]
        return [client.post("/post", **each).json()["headers"] for each in sent]


def a_bad_status_is_raised():
    with _client() as client:
        try:
            client.get("/status/404").raise_for_status()
        except httpx.HTTPStatusError as error:
            return [error.response.status_code, str(error)]


def a_stream():
    with _client() as client, client.stream("GET", "/stream") as answer:
        return [json.loads(line)["path"] for line in answer.iter_lines()]


def a_client_with_cookies_and_headers():
    with _client(headers={"x-token": "t"}, auth=("user", "word")) as client:
        client.get("/one")
        return [client.get("/two").json(), dict(client.cookies)]


def redirects():
    with _client(follow_redirects=True) as client:
        answer = client.get("/redirect")
        return [answer.json(), len(answer.history)]


def async_client():
    async def several(path):
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path), base_url="http://echo") as client:
            answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(5)))
            return [answer.json()["path"] for answer in answers]

    with _socket() as path:
        return asyncio.run(several(path))


def nobody_answers():
    try:
        httpx.get("http://127.0.0.1:9/", timeout=5)
    except httpx.ConnectError as error:
        return str(error)


def transports_without_a_network():
    def answer(request):
        return httpx.Response(200, json={"path": request.url.path})

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Hello World!"})

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://testserver") as client:
            return (await client.get("/")).text

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        return [client.get("https://example.org/a").json(), asyncio.run(ask())]
