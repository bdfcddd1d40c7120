"""Tokenizers trained here give text back, and say what is wrong with a file that is none."""

import pytest
import sentencepiece

from o1jax.config import ConfigError
from o1jax.io.tokenizer import (
  EOS,
  PAD,
  UNK,
  load_tokenizer,
  saved_fingerprint,
  text_tokenizer_key,
  train_text_tokenizer,
  train_tokenizer,
)

TEXT = [
  "A baker fills 6 trays with 12 rolls each.\nAnswer:\nThe baker makes 6*12 = 72 rolls.\n#### 72",
  "Ines reads 35 pages a day.\nAnswer:\nShe reads 28*35 = 980 pages.\n#### 980",
]

AWKWARD = [
  "", " ", "\n", "  two  spaces  ", "\n\nblank\n\n", "tab\tand\r\n", "é ½ 日本 😀", "a\u00a0b\u2028c", "ﬁ Å Å",
  "\x00\x01", "<s> </s> <pad> <unk> <0x0A>", "#### 1,234", "Zürich", "x" * 5000,
  "a▁b ▁▁ c\n▁", "▁", "\ue000▁\ue001",
]  # fmt: skip


@pytest.mark.parametrize("text", AWKWARD)
def test_any_text_comes_back(text):
  tokenizer = train_text_tokenizer(TEXT, vocab_size=400)
  assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_comes_back_where_training_saw_no_space_and_no_newline():
  tokenizer = train_text_tokenizer(["abc"], vocab_size=300)
  assert tokenizer.decode(tokenizer.encode(" a  b\n")) == " a  b\n"


def test_encoding_is_local_to_lines_and_digits():
  tokenizer = train_text_tokenizer(TEXT, vocab_size=400)
  newline = tokenizer.token("\n")
  assert tokenizer.encode("6\n\n72") == [*tokenizer.encode("6"), newline, newline, *tokenizer.encode("72")]
  assert len(tokenizer.encode("98012")) == 5


def test_padding_and_control_tokens_have_no_text():
  tokenizer = train_text_tokenizer(TEXT, vocab_size=400)
  assert tokenizer.decode([PAD, *tokenizer.encode("6 rolls"), EOS, PAD]) == "6 rolls"


def test_ids_beyond_the_vocabulary_read_as_unknown():
  tokenizer = train_tokenizer(["3 + 4 = 7 yes"] * 4, vocab_size=100, symbols=["▁3", "▁4", "▁7", "▁+", "▁="])
  ids, size = tokenizer.encode("3 + 4 = 7 yes"), tokenizer.vocab_size
  assert tokenizer.decode(ids) == "3 + 4 = 7 yes" and "⁇" not in tokenizer.decode(range(UNK + 1, size))
  for beyond in (size, size + 1, 10**6, -1, UNK):
    assert tokenizer.decode([*ids[:2], beyond, *ids[2:]]).split() == ["3", "+", "⁇", "4", "=", "7", "yes"]


def test_text_that_the_vocabulary_lacks_is_named():
  tokenizer = train_tokenizer(["3 + 4 = 7 yes"] * 4, vocab_size=100, symbols=["▁3", "▁4", "▁7", "▁+", "▁="])
  tokenizer.require_known("3 + 4 = 7 yes", "--prompt")
  with pytest.raises(ConfigError, match="^--prompt: the vocabulary cannot spell 'ü3'$"):
    tokenizer.require_known("3 + ü3 ü4", "--prompt")
  for empty in ("", "  "):
    with pytest.raises(ConfigError, match="^--prompt: has no tokens$"):
      tokenizer.require_known(empty, "--prompt")
  train_text_tokenizer(TEXT, vocab_size=400).require_known("any ü 日本 at all\n", "--prompt")


def test_vocabulary_stays_within_its_bound():
  assert train_text_tokenizer(TEXT, vocab_size=320).vocab_size == 320
  assert train_text_tokenizer(TEXT, vocab_size=100_000).vocab_size < 1000
  with pytest.raises(ConfigError, match="tokenizer: training failed") as error:
    train_text_tokenizer(TEXT, vocab_size=100)
  assert "\n" not in str(error.value)


def test_no_text_is_an_error():
  with pytest.raises(ConfigError, match="tokenizer: training failed"):
    train_text_tokenizer([], vocab_size=300)


def test_same_text_same_model_same_key():
  again = [str(line) for line in TEXT]
  assert train_text_tokenizer(TEXT, vocab_size=400).proto == train_text_tokenizer(again, vocab_size=400).proto
  assert text_tokenizer_key(TEXT, vocab_size=400) == text_tokenizer_key(again, vocab_size=400)


def test_another_text_or_size_has_another_key():
  keys = {
    text_tokenizer_key(TEXT, vocab_size=400),
    text_tokenizer_key(TEXT, vocab_size=401),
    text_tokenizer_key(TEXT[::-1], vocab_size=400),
    text_tokenizer_key(["".join(TEXT)], vocab_size=400),
    text_tokenizer_key(["ab", "c"], vocab_size=400),
    text_tokenizer_key(["a", "bc"], vocab_size=400),
  }
  assert len(keys) == 6


def test_symbols_are_one_token_each():
  symbols = [f"▁{n}" for n in range(30)] + ["▁+", "▁*", "▁="]
  tokenizer = train_tokenizer(["2 * 12 = 24 no", "29 + 0 = 29 yes"], vocab_size=100, symbols=symbols)
  ids = tokenizer.encode("2 * 12 = 24 no")
  assert ids[:5] == [tokenizer.token(piece) for piece in ("▁2", "▁*", "▁12", "▁=", "▁24")]
  assert tokenizer.decode(ids) == "2 * 12 = 24 no"


def test_an_unknown_piece_is_an_error_that_names_it():
  with pytest.raises(ConfigError, match="'▁wait'"):
    train_tokenizer(["no yes"], vocab_size=50).token("▁wait")


def test_a_saved_model_loads(tmp_path):
  tokenizer = train_text_tokenizer(TEXT, vocab_size=400)
  path = tmp_path / "a.model"
  assert saved_fingerprint(path) is None
  tokenizer.save(path)
  assert path.read_bytes() == tokenizer.proto
  assert load_tokenizer(str(path)) == tokenizer and saved_fingerprint(path) == tokenizer.fingerprint
  assert tokenizer.fingerprint != train_text_tokenizer(TEXT, vocab_size=350).fingerprint
  assert (tokenizer.pad, tokenizer.eos) == (PAD, EOS)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00" * 1000])
def test_a_file_that_is_no_model_is_an_error_that_names_it(tmp_path, content):
  path = tmp_path / "broken.model"
  path.write_bytes(content)
  with pytest.raises(ConfigError, match="broken.model"):
    load_tokenizer(str(path))


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
  with pytest.raises(ConfigError, match="absent.model"):
    load_tokenizer(str(tmp_path / "absent.model"))


# Where published models have their control pieces: (options, ours of what they call end of text, beginning,
# unknown).
LAYOUTS = {
  "llama": dict(pad_id=-1, unk_id=0, bos_id=1, eos_id=2),
  "gemma": dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3),
  "t5": dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
}


def other_model(folder, **options) -> str:
  prefix = str(folder / "other")
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXT), model_prefix=prefix, vocab_size=320, hard_vocab_limit=False, minloglevel=2,
    add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
    model_type="bpe",
    user_defined_symbols=["\n"], **options,
  )  # fmt: skip
  return f"{prefix}.model"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_control_pieces_may_have_any_ids(tmp_path, layout):
  path = other_model(tmp_path, byte_fallback=True, **LAYOUTS[layout])
  tokenizer, model = load_tokenizer(path), sentencepiece.SentencePieceProcessor(model_file=path)
  for text in (*TEXT, "é▁日本"):
    ids = tokenizer.encode(text)
    assert PAD not in ids and EOS not in ids and tokenizer.decode([PAD, *ids, EOS, PAD]) == text
  pieces = [tokenizer.token(model.id_to_piece(i)) for i in range(model.vocab_size()) if i != model.unk_id()]
  assert len(set(pieces)) == len(pieces) and set(pieces) <= set(range(model.vocab_size()))
  assert tokenizer.token(model.id_to_piece(model.eos_id())) == EOS
  assert "⁇" in tokenizer.decode([model.vocab_size()])


def test_a_model_without_the_pieces_a_policy_needs_is_refused(tmp_path):
  with pytest.raises(ConfigError, match="other.model: has neither a piece for padding"):
    load_tokenizer(other_model(tmp_path, **LAYOUTS["llama"]))
  with pytest.raises(ConfigError, match="other.model: has no piece for the end of a text"):
    load_tokenizer(other_model(tmp_path, pad_id=0, eos_id=-1, bos_id=1, unk_id=2, byte_fallback=True))


def test_a_blank_sign_that_cannot_be_spelt_is_named():
  tokenizer = train_tokenizer(["3 + 4 = 7 yes"] * 4, vocab_size=100, symbols=["▁3", "▁4", "▁7", "▁+", "▁="])
  with pytest.raises(ConfigError, match="^--prompt: the vocabulary cannot spell '3▁4'$"):
    tokenizer.require_known("3▁4 = 7", "--prompt")
