"""Tokenizers: what the package asks of one, and SentencePiece models, trained or loaded from a file.

`load_tokenizer` reads a SentencePiece model, a tokenizer.json or a Hugging Face folder (`io.hf_tokenizer`).
"""

import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import sentencepiece

from o1jax.config import ConfigError, require
from o1jax.io.data import write_atomically
from o1jax.io.hf_tokenizer import MAIN, ChatSource, files_fingerprint, folder_files, load_hf_tokenizer

PAD, BOS, EOS, UNK = 0, 1, 2, 3  # of the models that are trained here


class Tokenizer(Protocol):
  """Text as token ids, and back."""

  @property
  def vocab_size(self) -> int:
    """Ids are 0 .. vocab_size - 1."""

  @property
  def pad(self) -> int:
    """The id that stands where a row has no token."""

  @property
  def eos(self) -> int:
    """The id that ends a text."""

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """`eos`, and what else ends a text."""

  @property
  def control(self) -> str:
    """Regular expression of text that is read as a control token; "" where no text is."""

  @property
  def chat_source(self) -> ChatSource | None:
    """The model's own chat template; None where it has none."""

  @property
  def saved_as(self) -> str:
    """Its name in a run's folder."""

  @property
  def fingerprint(self) -> str:
    """Hex SHA-256 of what `save` writes."""

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without any that begins or ends it."""

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; padding and control tokens have none, an id beyond the vocabulary reads as unknown."""

  def require_known(self, text: str, field: str) -> None:
    """Raises ConfigError naming `field` where `text` has no token, or cannot be spelt."""

  def save(self, path: pathlib.Path) -> None:
    """Writes the file or the folder that the tokenizer is loaded from."""


def saved_fingerprint(path: pathlib.Path) -> str | None:
  """The fingerprint of the tokenizer saved in a file or a folder; None where there is none."""
  if path.is_dir():
    return files_fingerprint(folder_files(path))
  return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
  """A SentencePiece model as data: `proto` is the serialised model, saved beside each run.

  Ids are the model's own, but for those of padding and end of text where it has them elsewhere than PAD and
  EOS: they change places with what stands there.
  """

  proto: bytes
  pad: int = dataclasses.field(default=PAD, init=False)
  eos: int = dataclasses.field(default=EOS, init=False)
  eos_ids = (EOS,)
  control = ""  # its control pieces are never read from text
  chat_source = None
  saved_as = "tokenizer.model"

  @property
  def _model(self) -> "_Model":
    return _load(self.proto)

  @property
  def vocab_size(self) -> int:
    return self._model.processor.vocab_size()

  @property
  def fingerprint(self) -> str:
    return hashlib.sha256(self.proto).hexdigest()

  def save(self, path: pathlib.Path) -> None:
    write_atomically(path, self.proto)

  def encode(self, text: str) -> list[int]:
    """Token ids of `text`, without BOS or EOS. A model that has bytes spells U+2581 in them."""
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
    known = [theirs.get(int(i), int(i)) if i in pieces else unknown for i in ids if i != self.pad]
    return processor.decode(known)

  def require_known(self, text: str, field: str) -> None:
    """Raises ConfigError where `text` has no token, or naming its first word that cannot be spelt."""
    require(bool(self.encode(text)), field, "has no tokens")
    model = self._model
    unknown = model.ours.get(model.processor.unk_id(), model.processor.unk_id())
    for word in (*text.split(), text):
      spelt = unknown not in self.encode(word) and (model.has_bytes or BLANK not in word)
      require(spelt, field, f"the vocabulary cannot spell {word!r}")

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
  """Where a model's padding and end of text go, and what stood there: {} of a model that has PAD and EOS.

  A model without padding (Llama's) gives its unknown piece, which nothing with bytes is encoded to.
  """
  pad = processor.pad_id() if processor.pad_id() >= 0 else processor.unk_id()
  if pad == processor.eos_id() or min(pad, processor.eos_id()) < 0:
    return {}  # which `load_tokenizer` refuses
  moved = {pad: PAD, processor.eos_id(): EOS}
  others = sorted({PAD, EOS} - moved.keys())
  left = sorted(moved.keys() - {PAD, EOS})
  places = {**moved, **dict(zip(others, left, strict=True))}
  return {index: place for index, place in places.items() if index != place}


def _with_blanks(processor: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
  """Ids of a text with U+2581 in it.

  A character stands in for it that the vocabulary and the text lack; its bytes are exchanged in the result.
  """
  private_use = map(chr, range(0xE000, 0xF900))
  spare = next(c for c in private_use if c not in text and processor.piece_to_id(c) == processor.unk_id())
  spelt, blank = ([processor.piece_to_id(f"<0x{b:02X}>") for b in c.encode()] for c in (spare, BLANK))
  ids = processor.encode(text.replace(BLANK, spare))
  for place in range(len(ids) - len(spelt) + 1):
    if ids[place : place + len(spelt)] == spelt:
      ids[place : place + len(spelt)] = blank
  return ids


def train_tokenizer(
  text: Iterable[str], *, vocab_size: int, symbols: Sequence[str] = ()
) -> SentencePieceTokenizer:
  """Trains a BPE model on `text` (one sentence an item), for tasks whose words are known.

  `vocab_size` is an upper bound, control tokens included: little text has few pieces. `symbols` are pieces
  that are never split ("▁" stands for the space before a word). Whitespace is normalised: runs of it are one
  space. Same text, same model. Raises ConfigError where SentencePiece refuses.
  """
  return _train(text, vocab_size=vocab_size, user_defined_symbols=list(symbols))


# Nothing is normalised, so that text comes back as it was: whitespace is kept, a newline and each digit are
# pieces of their own, and what the vocabulary lacks is spelt in bytes.
_TEXT_OPTIONS = {
  "user_defined_symbols": ["\n"], "byte_fallback": True, "split_digits": True, "character_coverage": 1.0,
  "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False,
  "required_chars": "▁", "max_sentence_length": 1 << 24,
}  # fmt: skip


def train_text_tokenizer(text: Iterable[str], *, vocab_size: int) -> SentencePieceTokenizer:
  """Trains a BPE model on `text` (one document an item) that gives any text back exactly, newlines included.

  `vocab_size` is an upper bound, control tokens and the 256 bytes included. Same text, same model.
  Raises ConfigError where SentencePiece refuses.
  """
  return _train(text, vocab_size=vocab_size, **_TEXT_OPTIONS)


def text_tokenizer_key(text: Iterable[str], *, vocab_size: int) -> str:
  """Hex name of the model that `train_text_tokenizer` makes of these arguments, for a cache."""
  digest = hashlib.sha256(repr((sentencepiece.__version__, vocab_size, _TEXT_OPTIONS)).encode())
  for document in text:
    digest.update(f"{len(document)} {document}".encode())
  return digest.hexdigest()[:16]


def _train(text: Iterable[str], *, vocab_size: int, **options: Any) -> SentencePieceTokenizer:
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(text), model_writer=model, model_type="bpe", vocab_size=vocab_size,
      hard_vocab_limit=False, num_threads=1, pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK, minloglevel=2,
      **options,
    )  # fmt: skip
  except RuntimeError as error:
    raise ConfigError(f"tokenizer: training failed: {' '.join(str(error).split())}") from error
  return SentencePieceTokenizer(model.getvalue())


def load_tokenizer(path: str) -> Tokenizer:
  """Reads a SentencePiece model file, a tokenizer.json, or a folder that holds one.

  Raises ConfigError naming the file where it is none of these, or lacks what a policy needs.
  """
  place = pathlib.Path(path)
  if not place.is_dir():
    return load_hf_tokenizer(place) if place.suffix == ".json" else load_sentencepiece(path)
  other = "; it has a tokenizer.model: name that file" if (place / "tokenizer.model").is_file() else ""
  require((place / MAIN).is_file(), path, f"holds no {MAIN}{other}")
  return load_hf_tokenizer(place)


def load_sentencepiece(path: str) -> SentencePieceTokenizer:
  """Reads a SentencePiece model file, with any ids of its control pieces.

  Raises ConfigError naming the file where it is none, or where it lacks an end of text or a padding.
  """
  try:
    with open(path, "rb") as file:
      tokenizer = SentencePieceTokenizer(file.read())
    model = tokenizer._model.processor
    require(model.eos_id() >= 0, path, "has no piece for the end of a text (eos_id)")
    padded = model.pad_id() >= 0 or tokenizer._model.has_bytes
    require(model.pad_id() != model.eos_id(), path, "pads with its end of a text (pad_id == eos_id)")
    require(padded, path, "has neither a piece for padding (pad_id) nor bytes (byte_fallback)")
  except (OSError, RuntimeError) as error:
    raise ConfigError(f"{path}: not a SentencePiece model: {error}") from error
  return tokenizer
