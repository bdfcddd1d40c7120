"""A judge behind an OpenAI-compatible endpoint: retries, timeouts, rate limit, concurrency and costs.

    prompts -> at most `concurrency` requests at once, each in its turn -> replies -> opinions, in order

The client and its retries are the package `openai`, the rate limit is `aiolimiter` (extra `judge`). All of
them live in one event loop on a thread of the Endpoint's own, so that its limits hold over calls and from
whatever thread they come. A request that fails for good costs its own opinion alone, is counted, and logged
once a kind. Prompts are requests of one user message. Left out: streaming, batch endpoints, reasoning models
that hide their log-probs (use votes).
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from o1jax.config import ConfigError, JudgeConfig, require
from o1jax.verifiers.base import Verify
from o1jax.verifiers.judge.judge import (
  VOTE_CLOSING,
  YES_CLOSING,
  Opinion,
  Rationale,
  Score,
  by_votes,
  fenced,
  make_ask,
  make_verify,
  spells,
)

NO_KEY = "none"  # what is sent to an endpoint that asks for no key

_LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Costs:
  """Requests, tokens and dollars that an Endpoint has used."""

  requests: int = 0  # attempts sent, retries included
  retries: int = 0
  timeouts: int = 0  # requests given up because of time
  crashes: int = 0  # requests given up for any other reason, replies that cannot be read included
  unmetered: int = 0  # replies that do not say what they used: tokens and dollars are too low by these
  prompt_tokens: int = 0
  completion_tokens: int = 0
  dollars: float = 0.0

  def __add__(self, other: "Costs") -> "Costs":
    return Costs(**{name: value + vars(other)[name] for name, value in vars(self).items()})


class Reply(NamedTuple):
  """The first choice of a reply; a request that failed has an error in its place."""

  text: str = ""
  finished: bool = False  # it stopped by itself
  tops: Sequence[tuple[str, float]] = ()  # the likeliest first tokens and their log-probs
  error: str | None = None  # "timeout" | "crashed"


def p_yes(tops: Sequence[tuple[str, float]]) -> float | None:
  """P(Yes) by the likeliest tokens and their log-probs; None where they spell neither Yes nor No.

  Summed over spellings (case, a space before). Yes beyond the likeliest is not counted, so that this is a
  lower bound, exact to what is left of their mass.
  """
  words = [(spells(token), logp) for token, logp in tops]
  if all(word is None for word, _ in words):
    return None
  return min(1.0, math.fsum(math.exp(logp) for word, logp in words if word == "yes"))


def read_reply(body: Any) -> Reply:
  """The first choice of a chat completion's JSON. Raises ValueError where it is of another form."""
  try:
    choice = body["choices"][0]
    text, finish = choice["message"]["content"], choice.get("finish_reason")
    logprobs = choice.get("logprobs") or {}
    first = (logprobs.get("content") or [{}])[0].get("top_logprobs") or []
    tops = [(top["token"], float(top["logprob"])) for top in first]
  except (KeyError, IndexError, TypeError, AttributeError) as error:
    raise ValueError("the reply is no chat completion") from error
  if not (text is None or isinstance(text, str)) or not all(isinstance(token, str) for token, _ in tops):
    raise ValueError("the reply is no chat completion")
  if any(math.isnan(logp) or logp > 1e-3 for _, logp in tops):
    raise ValueError("the reply has a log-prob above 0")
  return Reply(text or "", finish == "stop", tops)


def metered(body: Any, cfg: JudgeConfig) -> Costs:
  """The tokens that a reply reports, at the configured prices."""
  usage = body.get("usage") if isinstance(body, dict) else None
  usage = usage if isinstance(usage, dict) else {}
  prompt, completion = (usage.get(f"{kind}_tokens") for kind in ("prompt", "completion"))
  if not (isinstance(prompt, int) and isinstance(completion, int)):
    return Costs(unmetered=1)
  dollars = (prompt * cfg.prompt_price + completion * cfg.completion_price) / 1e6
  return Costs(prompt_tokens=prompt, completion_tokens=completion, dollars=dollars)


def _libraries() -> tuple[Any, Any]:
  """(openai, aiolimiter); raises ConfigError naming the extra where one is missing."""
  try:
    import aiolimiter
    import openai
  except ImportError as error:
    raise ConfigError(f"judge: needs the package {error.name}: pip install 'o1jax[judge]'") from error
  return openai, aiolimiter


def _key(cfg: JudgeConfig) -> str:
  """The endpoint's key; NO_KEY where it asks for none, lest the client look for one by itself."""
  if cfg.api_key_env is None:
    return NO_KEY
  key = os.environ.get(cfg.api_key_env, "").strip()
  require(bool(key), "judge.api_key_env", f"the environment has no {cfg.api_key_env}")
  return key


def openai_client(openai: Any, cfg: JudgeConfig, key: str, sent: Callable[[Any], Awaitable[None]]) -> Any:
  """The package's client, which awaits `sent(request)` before each attempt."""
  http = openai.DefaultAsyncHttpxClient(timeout=cfg.timeout, event_hooks={"request": [sent]})
  return openai.AsyncOpenAI(
    api_key=key, base_url=cfg.base_url, timeout=cfg.timeout, max_retries=cfg.max_retries, http_client=http
  )


class Endpoint:
  """An open connection to a judge; a context manager. Its methods may be called from any thread."""

  def __init__(self, cfg: JudgeConfig):
    """Raises ConfigError where `cfg` cannot work, the key is not set, or the extra `judge` is missing."""
    cfg.validate("judge")
    self.cfg, self.costs = cfg, Costs()
    self._openai, aiolimiter = _libraries()
    self._secret = _key(cfg)
    self._logged: set[str] = set()
    self._slots = asyncio.Semaphore(cfg.concurrency)
    self._limiter: Any = None
    if cfg.requests_per_minute is not None:
      # One at a time in its share of a minute: a bucket of a minute would let its content out at once.
      self._limiter = aiolimiter.AsyncLimiter(1, 60.0 / cfg.requests_per_minute)
    self._client = openai_client(self._openai, cfg, self._secret, self._sent)
    self._loop = asyncio.new_event_loop()
    self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
    self._thread.start()

  def __enter__(self) -> "Endpoint":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def close(self) -> None:
    """Gives up what is under way and lets go of connections and thread; the costs stay readable."""
    if self._loop.is_closed():
      return
    self._run(self._leave())
    self._loop.call_soon_threadsafe(self._loop.stop)
    self._thread.join()
    self._loop.close()

  def check(self) -> None:
    """Sends one request. Raises ConfigError where it fails, or has no log-probs and they are needed."""
    reply, why = self._run(self._ask("Is 2 + 2 = 4? Reply with one word, Yes or No.", 0))
    require(reply.error is None, "judge", f"{self.cfg.base_url}: {why}")
    needed = self.cfg.votes == 0 and not reply.tops
    require(not needed, "judge.votes", f"{self.cfg.base_url} gives no log-probs: ask for votes")

  def score(self, prompts: Sequence[str]) -> list[Opinion]:
    """P("Yes") of each prompt's next token; "unparsable" where it is likely neither Yes nor No."""
    return [self._opinion(reply) for (reply,) in self._replies(prompts, 1)]

  def sample(self, prompts: Sequence[str]) -> list[list[Rationale]]:
    """`votes` rationales of each prompt."""
    rows = self._replies(prompts, self.cfg.votes)
    return [[Rationale(reply.text, reply.finished, reply.error) for reply in row] for row in rows]

  def _opinion(self, reply: Reply) -> Opinion:
    if reply.error is not None:
      return Opinion(None, reply.error)
    yes = p_yes(reply.tops)
    if yes is None:
      return Opinion(None, "unparsable", reply.text[:80] or None)
    return Opinion(yes, None, f"P(Yes) {yes:.4f}")

  def _replies(self, prompts: Sequence[str], each: int) -> list[list[Reply]]:
    async def all_of_them() -> list[tuple[Reply, str]]:
      return await asyncio.gather(*(self._ask(prompt, vote) for prompt in prompts for vote in range(each)))

    replies = [reply for reply, _ in self._run(all_of_them())]
    return [replies[at : at + each] for at in range(0, len(replies), each)]

  def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
    """Waits in the calling thread for work in the Endpoint's; gives it up where the wait is interrupted."""
    future = asyncio.run_coroutine_threadsafe(work, self._loop)
    try:
      return future.result()
    except BaseException:
      future.cancel()
      raise

  # In the Endpoint's own thread

  async def _leave(self) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
      task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await self._client.close()

  async def _turn(self) -> None:
    """Waits for the rate limit, where there is one."""
    if self._limiter is not None:
      await self._limiter.acquire()

  async def _sent(self, request: Any) -> None:
    """Before an attempt goes out: counts it, and has a retry wait for its turn as a first attempt did."""
    retry = request.headers.get("x-stainless-retry-count", "0") != "0"
    if retry:
      await self._turn()
    self.costs += Costs(requests=1, retries=int(retry))

  def _body(self, prompt: str, vote: int) -> dict[str, Any]:
    cfg = self.cfg
    body: dict[str, Any] = {"model": cfg.model, "messages": [{"role": "user", "content": prompt}]}
    if cfg.votes == 0:  # at temperature 1, where log-probs before and behind the temperature are the same
      return {**body, "max_tokens": 1, "temperature": 1.0, "logprobs": True, "top_logprobs": cfg.top_logprobs}
    seed = {} if cfg.seed is None else {"seed": cfg.seed + vote}
    return {**body, "max_tokens": cfg.max_tokens, "temperature": cfg.temperature, **seed}

  async def _ask(self, prompt: str, vote: int) -> tuple[Reply, str]:
    """(one reply, why there is none); never raises for what the endpoint does."""
    openai = self._openai
    async with self._slots:
      await self._turn()
      try:
        async with asyncio.timeout(self.cfg.deadline):
          raw = await self._client.chat.completions.with_raw_response.create(**self._body(prompt, vote))
          body = json.loads(raw.content)
        self.costs += metered(body, self.cfg)
        return read_reply(body), ""
      except (TimeoutError, openai.APITimeoutError) as error:
        return self._failed("timeout", error)
      except (openai.OpenAIError, ValueError, RecursionError) as error:  # ValueError: a reply of another form
        return self._failed("crashed", error)

  def _failed(self, kind: str, error: Exception) -> tuple[Reply, str]:
    """Counts a failed request and logs the first of its kind, without the key that a server may repeat."""
    self.costs += Costs(timeouts=int(kind == "timeout"), crashes=int(kind == "crashed"))
    text = f"{type(error).__name__}: {error}"
    text = text if self._secret == NO_KEY else text.replace(self._secret, "***")
    why = " ".join(text.split())[:300]
    if type(error).__name__ not in self._logged:
      self._logged.add(type(error).__name__)
      _LOG.warning("judge %s: %s (%s); others of this kind are counted alone", self.cfg.base_url, why, kind)
    return Reply(error=kind), why


@contextlib.contextmanager
def http_judge(cfg: JudgeConfig) -> Iterator[tuple[Verify, Endpoint]]:
  """(a verifier, its Endpoint), while the context is open. Raises ConfigError as Endpoint does.

  P("Yes") where `cfg.votes` is 0, else the mean of that many votes.
  """
  with Endpoint(cfg) as endpoint:
    score: Score = by_votes(endpoint.sample) if cfg.votes else endpoint.score
    closing = VOTE_CLOSING if cfg.votes else YES_CLOSING
    yield make_verify(score, make_ask(fenced, closing, cfg.sees), cfg.threshold), endpoint
