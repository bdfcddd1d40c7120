"""An OpenAI-compatible server on this machine that answers, refuses, hangs and lies, for tests of judges."""

import collections
import contextlib
import http.server
import json
import math
import threading

from o1jax.config import JudgeConfig

KEY = "sk-test-0123456789"


class Server(http.server.ThreadingHTTPServer):
  """Answers requests in the order of `script`, then with `answer`: functions of a handler and its request."""

  daemon_threads = True
  request_queue_size = 256  # as many connections may wait as the tests open at once

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.script: collections.deque = collections.deque()
    self.answer = lambda handler, request: reply(handler, completion("Yes", tops={"Yes": 0.75, "No": 0.25}))
    self.seen: list[dict] = []
    self.headers: list[dict] = []
    self.lock, self.over = threading.Lock(), threading.Event()
    self.now = self.most = 0  # requests under way

  def handle_error(self, request, client_address):
    """A client that hung up is no news here."""


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_POST(self):
    request = json.loads(self.rfile.read(int(self.headers["content-length"])))
    with self.server.lock:
      self.server.seen.append(request)
      self.server.headers.append(dict(self.headers))
      act = self.server.script.popleft() if self.server.script else self.server.answer
      self.server.now += 1
      self.server.most = max(self.server.most, self.server.now)
    act(self, request)

  def log_message(self, *arguments):
    """Quiet."""


def completion(text, *, finish="stop", tops=None, usage=(10, 1)):
  """The JSON of a chat completion; `tops` are probabilities of first tokens."""
  likely = [{"token": token, "logprob": math.log(p)} for token, p in (tops or {}).items()]
  logprobs = None if tops is None else {"content": [{**likely[0], "top_logprobs": likely}]}
  choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
  used = None if usage is None else {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
  return {"id": "x", "choices": [{**choice, "logprobs": logprobs}], "usage": used}


def reply(handler, body, status=200, kind="application/json", **headers):
  with handler.server.lock:
    handler.server.now -= 1
  content = body if isinstance(body, bytes) else json.dumps(body).encode()
  handler.send_response(status)
  for name, value in {"content_type": kind, "content_length": len(content), **headers}.items():
    handler.send_header(name.replace("_", "-"), str(value))
  handler.end_headers()
  handler.wfile.write(content)


def refuse(status, **headers):
  return lambda handler, request: reply(handler, {"error": {"message": f"no: {KEY}"}}, status, **headers)


def say(body, **headers):
  return lambda handler, request: reply(handler, body, **headers)


def hang(handler, request):
  handler.server.over.wait(30)
  handler.close_connection = True


def trickle(handler, request):
  """Goes on sending, a byte at a time, so that no single wait is long."""
  reply(handler, b"", content_length=100_000)
  while not handler.server.over.wait(0.02):
    handler.wfile.write(b" ")
    handler.wfile.flush()


def hang_up(handler, request):
  handler.close_connection = True
  handler.connection.close()


def break_off(handler, request):
  """Hangs up in the middle of a body."""
  reply(handler, b'{"choices": [', content_length=1000)
  handler.close_connection = True


@contextlib.contextmanager
def serving(monkeypatch):
  """A running server; the environment has its key and no proxy."""
  for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
  monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)  # its pauses, not its decisions
  with Server() as server:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()


def config(server, **options) -> JudgeConfig:
  given = {
    "model": "m",
    "base_url": f"http://127.0.0.1:{server.server_port}/v1",
    "api_key_env": "TEST_JUDGE_KEY",
  }
  return JudgeConfig(**{**given, "timeout": 10.0, "max_retries": 2, **options})
