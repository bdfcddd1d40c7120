"""SentencePiece tokenizers: trained from a task's own text, or loaded from a file."""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sentencepiece

from o1jax.config import ConfigError, require

PAD, BOS, EOS, UNK = 0, 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A SentencePiece model as data: `proto` is the serialised model, saved beside each run.

  Ids are the model's own, but for those of padding and end of text where it has them elsewhere than PAD and EOS: they
  change places with what stands there.
  """

  proto: bytes

  @property
  def _model(self) -> "_Model":
    return _load(self.proto)

  @property
  def vocab_size(self) -> int:
    return self._model.processor.vocab_size()

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without BOS or EOS. A model that spells what it lacks in bytes spells U+2581 so, too."""
    model = self._model
    if BLANK in text and model.has_bytes:
      ids = _with_blanks(model.processor, text)
    else:
      ids = model.processor.encode(text)
    return [model.ours.get(i, i) for i in ids] if model.ours else ids

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; padding and control tokens have none, and what is no piece reads "⁇".

    A model's vocabulary may be larger than the tokenizer's, and a policy may draw from all of it.
    """
    processor, theirs = self._model.processor, self._model.theirs
    pieces, unknown = range(processor.vocab_size()), processor.unk_id()
    known = [theirs.get(int(i), int(i)) if i in pieces else unknown for i in ids if i != PAD]
    return processor.decode(known)

  def require_known(self, text: str, field: str) -> None:
    """Raises ConfigError where `text` has no token, or naming its first word that the vocabulary cannot spell."""
    require(bool(self.encode(text)), field, "has no tokens")
    model = self._model
    unknown = model.ours.get(model.processor.unk_id(), model.processor.unk_id())
    spelt = lambda word: unknown not in self.encode(word) and (model.has_bytes or BLANK not in word)
    lacking = [word for word in (*text.split(), text) if not spelt(word)]
    require(not lacking, field, f"the vocabulary cannot spell {''.join(lacking[:1])!r}")

  def token(self, piece: str) -> int:
    """Id of one piece. Raises ConfigError where the vocabulary lacks it."""
    model = self._model
    index = model.processor.piece_to_id(piece)
    if index == model.processor.unk_id():
      raise ConfigError(f"tokenizer: the vocabulary has no piece {piece!r}")
    return model.ours.get(index, index)


BLANK = "▁"  # U+2581, which SentencePiece writes for a space and reads as one


class _Model(NamedTuple):
  """A parsed model, and where its ids are others than ours."""

  processor: sentencepiece.SentencePieceProcessor
  ours: Mapping[int, int]  # the model's id -> ours, of ids that differ
  theirs: Mapping[int, int]  # and back
  has_bytes: bool  # whether text that the vocabulary lacks is spelt in bytes


_MODELS: dict[bytes, _Model] = {}


def _load(proto: bytes) -> _Model:
  """One processor a model: parsing the model is slow, and the result is read-only."""
  if proto not in _MODELS:
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    ours = _places(processor)
    back = {place: index for index, place in ours.items()}
    _MODELS[proto] = _Model(processor, ours, back, _has_bytes(processor))
  return _MODELS[proto]


def _has_bytes(processor: sentencepiece.SentencePieceProcessor) -> bool:
  return processor.vocab_size() > 0 and processor.is_byte(processor.piece_to_id("<0x00>"))


def _places(processor: sentencepiece.SentencePieceProcessor) -> dict[int, int]:
  """Where a model's padding and end of text go, and what stood there: {} of a model that has PAD and EOS itself.

  A model without padding (Llama's) gives its unknown piece, which nothing is encoded to where there are bytes.
  """
  pad = processor.pad_id() if processor.pad_id() >= 0 else processor.unk_id()
  if pad == processor.eos_id() or min(pad, processor.eos_id()) < 0:
    return {}  # which `load_tokenizer` refuses
  wanted = {pad: PAD, processor.eos_id(): EOS}
  others = sorted({PAD, EOS} - wanted.keys())
  left = sorted(wanted.keys() - {PAD, EOS})
  places = {**wanted, **dict(zip(others, left, strict=True))}
  return {index: place for index, place in places.items() if index != place}


def _with_blanks(processor: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
  """Ids of a text with U+2581 in it: a character stands in that the vocabulary and the text lack, and its bytes are
  exchanged for those of U+2581."""
  spare = next(
    c
    for c in map(chr, range(0xE000, 0xF900))
    if c not in text and processor.piece_to_id(c) == processor.unk_id()
  )
  in_bytes = lambda c: [processor.piece_to_id(f"<0x{byte:02X}>") for byte in c.encode()]
  spelt, blank = in_bytes(spare), in_bytes(BLANK)
  ids = processor.encode(text.replace(BLANK, spare))
  for place in range(len(ids) - len(spelt) + 1):
    if ids[place : place + len(spelt)] == spelt:
      ids[place : place + len(spelt)] = blank
  return ids


def train_tokenizer(text: Iterable[str], *, vocab_size: int, symbols: Sequence[str] = ()) -> Tokenizer:
  """Trains a BPE model on `text` (one sentence an item), for tasks whose words are known.

  `vocab_size` is an upper bound, control tokens included: little text has few pieces. `symbols` are pieces that
  are never split ("▁" stands for the space before a word). Whitespace is normalised: runs of it are one space.
  Same text, same model. Raises ConfigError where SentencePiece refuses.
  """
  return _train(text, vocab_size=vocab_size, user_defined_symbols=list(symbols))


# Nothing is normalised, so that text comes back as it was: whitespace is kept, a newline and each digit are pieces of
# their own, and what the vocabulary lacks is spelt in bytes.
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
  """Reads a SentencePiece model file, with any ids of its control pieces.

  Raises ConfigError naming the file where it is none, or where it lacks an end of text or a padding.
  """
  try:
    with open(path, "rb") as file:
      tokenizer = Tokenizer(file.read())
    model = tokenizer._model.processor
    require(model.eos_id() >= 0, path, "has no piece for the end of a text (eos_id)")
    padded = model.pad_id() >= 0 or tokenizer._model.has_bytes
    require(model.pad_id() != model.eos_id(), path, "pads with its end of a text (pad_id == eos_id)")
    require(padded, path, "has neither a piece for padding (pad_id) nor bytes (byte_fallback)")
  except (OSError, RuntimeError) as error:
    raise ConfigError(f"{path}: not a SentencePiece model: {error}") from error
  return tokenizer
