"""Options of free text: the tokenizer, and how a problem becomes a prompt."""

import dataclasses
import datetime

from o1jax.config.base import require

CHAT_TEMPLATE = "chat"  # the name of the tokenizer's own template


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """How a task of free text becomes tokens."""

  # A SentencePiece model file, a tokenizer.json, or a Hugging Face folder with one; None: trained on what is
  # learned from alone.
  tokenizer: str | None = None
  vocab: int = 1024  # of a trained tokenizer
  # How a problem is put to the model: the name of a shipped template (none, lines, plain, qwen3, llama3,
  # gemma, ...), or of one of a file of your own, as FILE.toml:NAME. What stands in `tasks/templates.toml`
  # says which there are. `chat`: the chat template of the tokenizer's folder, with the instruction as its
  # system prompt.
  template: str = "none"
  enable_thinking: bool | None = None  # the variable of that name in `chat` (Qwen3 has it); None: not set
  date: str = "2024-07-26"  # what `chat` takes for today, where it names the day (Llama 3.2 does)
  # what the prompt says before the problem: likewise a shipped one's name, or FILE.toml:NAME
  instruction: str = "none"

  def validate(self, field: str) -> None:
    """Raises ConfigError naming the first field that cannot work, below the dotted name `field`."""
    require(self.vocab >= 300, f"{field}.vocab", "must be at least 300: 256 bytes and some pieces")
    trained = self.tokenizer is None or self.vocab == TextConfig.vocab
    problem = f"cannot act with tokenizer={self.tokenizer}, which has a vocabulary of its own"
    require(trained, f"{field}.vocab", problem)
    chat = self.template == CHAT_TEMPLATE
    require(
      not chat or self.tokenizer is not None, f"{field}.template", "chat is a tokenizer's: name its folder"
    )
    other = f"acts with template={CHAT_TEMPLATE} alone"
    require(chat or self.enable_thinking is None, f"{field}.enable_thinking", other)
    require(chat or self.date == TextConfig.date, f"{field}.date", other)
    require(_is_date(self.date), f"{field}.date", f"must be a day as YYYY-MM-DD, is {self.date!r}")


def _is_date(text: str) -> bool:
  try:
    return datetime.date.fromisoformat(text).isoformat() == text
  except ValueError:
    return False
