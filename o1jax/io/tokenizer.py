"""SentencePiece tokenizers: trained from a task's own text, or loaded from a file."""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import sentencepiece

from o1jax.config import ConfigError, require

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
    """Text of `ids`; padding and control tokens have none, and what is no piece reads "⁇".

    A model's vocabulary may be larger than the tokenizer's, and a policy may draw from all of it.
    """
    processor = self._processor
    pieces, unknown = range(processor.vocab_size()), processor.unk_id()
    return processor.decode([int(i) if i in pieces else unknown for i in ids])

  def require_known(self, text: str, field: str) -> None:
    """Raises ConfigError where `text` has no token, or naming its first word that the vocabulary cannot spell."""
    require(bool(self.encode(text)), field, "has no tokens")
    unknown = self._processor.unk_id()
    lacking = [word for word in (*text.split(), text) if unknown in self.encode(word)]
    require(not lacking, field, f"the vocabulary cannot spell {''.join(lacking[:1])!r}")

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


def train_tokenizer(text: Iterable[str], *, vocab_size: int, symbols: Sequence[str] = ()) -> Tokenizer:
  """Trains a BPE model on `text` (one sentence an item), for tasks whose words are known.

  `vocab_size` is an upper bound, control tokens included: little text has few pieces. `symbols` are pieces that
  are never split ("▁" stands for the space before a word). Whitespace is normalised: runs of it are one space.
  Same text, same model. Raises ConfigError where SentencePiece refuses.
  """
  return _train(text, vocab_size=vocab_size, user_defined_symbols=list(symbols))


# Nothing is normalised, so that text comes back as it was: whitespace is kept, a newline and each digit are pieces of
# their own, and what the vocabulary lacks is spelt in bytes. "▁" (U+2581) alone is lost: SentencePiece reads a space.
_TEXT_OPTIONS = {
  "user_defined_symbols": ["\n"], "byte_fallback": True, "split_digits": True, "character_coverage": 1.0,
  "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False,
  "required_chars": "▁", "max_sentence_length": 1 << 24,
}  # fmt: skip


def train_text_tokenizer(text: Iterable[str], *, vocab_size: int) -> Tokenizer:
  """Trains a BPE model on `text` (one document an item) that gives any text back exactly, newlines included.

  `vocab_size` is an upper bound, control tokens and the 256 bytes included. Same text, same model.
  Raises ConfigError where SentencePiece refuses.
  """
  return _train(text, vocab_size=vocab_size, **_TEXT_OPTIONS)


def text_tokenizer_key(text: Iterable[str], *, vocab_size: int) -> str:
  """Hex name of the model that `train_text_tokenizer` makes of these arguments, for a cache of trained models."""
  digest = hashlib.sha256(repr((sentencepiece.__version__, vocab_size, _TEXT_OPTIONS)).encode())
  for document in text:
    digest.update(f"{len(document)} {document}".encode())
  return digest.hexdigest()[:16]


def _train(text: Iterable[str], *, vocab_size: int, **options: Any) -> Tokenizer:
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(text), model_writer=model, model_type="bpe", vocab_size=vocab_size,
      hard_vocab_limit=False, num_threads=1, pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK, minloglevel=2, **options,
    )  # fmt: skip
  except RuntimeError as error:
    raise ConfigError(f"tokenizer: training failed: {' '.join(str(error).split())}") from error
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
