"""Options of a judge behind an HTTP endpoint."""

import dataclasses
import re
import urllib.parse
from typing import Literal

from o1jax.config.base import require


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
  """A judge behind an OpenAI-compatible endpoint (`/chat/completions`), and what may be spent on it."""

  model: str  # the endpoint's name of the model
  base_url: str = "https://api.openai.com/v1"
  # Name of the environment variable that holds the key, never the key itself; None: the endpoint asks for
  # none.
  api_key_env: str | None = "OPENAI_API_KEY"
  votes: int = 0  # rationales a completion, each a request; 0: P("Yes") of one token in their place
  sees: Literal["problem", "reference"] = "problem"  # whether the judge is shown the gold answer too
  threshold: float = 0.5  # a completion is correct where its reward is above
  temperature: float = 1.0  # of rationales
  max_tokens: int = 1024  # of a rationale; one that is cut off is no vote
  seed: int | None = None  # vote k asks for the endpoint's seed + k; None: no seed is sent
  top_logprobs: int = 20  # first tokens that P("Yes") is read from
  timeout: float = 60.0  # seconds an attempt may wait to connect, to send, and for each piece of its reply
  # Seconds a request may take with its retries and their pauses, the first turn not counted.
  deadline: float = 300.0
  max_retries: int = 4  # after 408, 409, 429, 5xx, a timeout or a lost connection, with growing pauses
  requests_per_minute: float | None = None  # evenly spaced, retries included; None: no limit
  concurrency: int = 16  # requests under way at a time
  prompt_price: float = 0.0  # USD a million prompt tokens
  completion_price: float = 0.0  # USD a million completion tokens

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work; `field` is this group's dotted name."""
    require(bool(self.model), f"{field}.model", "must name a model")
    self._validate_access(field)
    for name in ("votes", "max_retries", "temperature", "prompt_price", "completion_price"):
      require(vars(self)[name] >= 0, f"{field}.{name}", "must not be negative")
    for name in ("max_tokens", "timeout", "deadline", "concurrency"):
      require(vars(self)[name] > 0, f"{field}.{name}", "must be positive")
    rate = self.requests_per_minute
    require(rate is None or rate > 0, f"{field}.requests_per_minute", "must be positive, or None")
    require(0.0 <= self.threshold < 1.0, f"{field}.threshold", "must lie in [0, 1)")
    require(1 <= self.top_logprobs <= 20, f"{field}.top_logprobs", "must lie in 1..20")
    default = {
      name: vars(JudgeConfig)[name] for name in ("temperature", "max_tokens", "seed", "top_logprobs")
    }
    for name in ("temperature", "max_tokens", "seed"):
      acts = self.votes > 0 or vars(self)[name] == default[name]
      require(acts, f"{field}.{name}", 'cannot act with votes=0, which reads P("Yes") of one token')
    acts = self.votes == 0 or self.top_logprobs == default["top_logprobs"]
    require(acts, f"{field}.top_logprobs", "cannot act with votes, which are read from their text")
    several = self.votes < 2 or self.temperature > 0
    require(several, f"{field}.temperature", f"is 0, greedy, so that {self.votes} votes are all one")

  def _validate_access(self, field: str) -> None:
    """What could send a key astray, or write it into a run's record. Nothing here repeats a value that may
    be one.
    """
    require(_is_http(self.base_url), f"{field}.base_url", "must be an http(s) URL")
    bare = "@" not in urllib.parse.urlsplit(self.base_url).netloc
    require(bare, f"{field}.base_url", "must not hold a user or password: the configuration is written down")
    named = self.api_key_env is None or re.fullmatch(r"[A-Z_a-z][A-Z_a-z0-9]*", self.api_key_env) is not None
    require(
      named, f"{field}.api_key_env", "must be the name of an environment variable, never the key itself"
    )


def _is_http(url: str) -> bool:
  try:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
  except ValueError:  # a port that is none, half an address in brackets
    return False
