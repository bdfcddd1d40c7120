"""SentencePiece tokenizers: trained from a task's own text, or loaded from a file."""

import dataclasses
import io
from typing import Iterable, Sequence

import sentencepiece

from o1jax.config import ConfigError

PAD, BOS, EOS, UNK = 0, 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A SentencePiece model as data: `proto` is the serialised model, saved beside each run."""

  proto: bytes

  @property
  def _processor(self) -> sentencepiece.SentencePieceProcessor:
    return _load(self.proto)

  @property
  def vocab_size(self) -> int:
    return self._processor.vocab_size()

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without BOS or EOS."""
    return self._processor.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; padding and control tokens have none."""
    return self._processor.decode([int(i) for i in ids])

  def token(self, piece: str) -> int:
    """Id of one piece. Raises ConfigError where the vocabulary lacks it."""
    index = self._processor.piece_to_id(piece)
    if index == UNK:
      raise ConfigError(f"tokenizer: the vocabulary has no piece {piece!r}")
    return index


_PROCESSORS: dict[bytes, sentencepiece.SentencePieceProcessor] = {}


def _load(proto: bytes) -> sentencepiece.SentencePieceProcessor:
  """One processor a model: parsing the model is slow, and the result is read-only."""
  if proto not in _PROCESSORS:
    _PROCESSORS[proto] = sentencepiece.SentencePieceProcessor(model_proto=proto)
  return _PROCESSORS[proto]


def train_tokenizer(text: Iterable[str], *, vocab_size: int, symbols: Sequence[str] = (), byte_fallback: bool = False) -> Tokenizer:
  """Trains a BPE model on `text` (one sentence an item).

  `vocab_size` is an upper bound, control tokens included: little text has few pieces. `symbols` are pieces that
  are never split ("▁" stands for the space before a word). Same text, same model.
  """
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(text), model_writer=model, model_type="bpe", vocab_size=vocab_size,
      hard_vocab_limit=False, user_defined_symbols=list(symbols), byte_fallback=byte_fallback, num_threads=1,
      pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK, minloglevel=2,
    )  # fmt: skip
  except RuntimeError as error:
    raise ConfigError(f"tokenizer: training failed: {error}") from error
  return Tokenizer(model.getvalue())


def load_tokenizer(path: str) -> Tokenizer:
  """Reads a SentencePiece model file. Raises ConfigError naming the file where it is none."""
  try:
    with open(path, "rb") as file:
      tokenizer = Tokenizer(file.read())
    if tokenizer._processor.pad_id() != PAD or tokenizer._processor.eos_id() != EOS:
      raise ConfigError(f"{path}: pad must be {PAD} and eos {EOS}; train the tokenizer with these ids")
  except (OSError, RuntimeError) as error:
    raise ConfigError(f"{path}: not a SentencePiece model: {error}") from error
  return tokenizer
