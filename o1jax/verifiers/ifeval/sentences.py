"""English sentences and words, cut as IFEval's checkers cut them: with NLTK and its trained English model.

    text -> candidate ends (. ? !) -> Punkt's rules with that model -> sentences -> Treebank words

Library: NLTK, its `PunktSentenceTokenizer` (Kiss & Strunk 2006, "Unsupervised Multilingual Sentence Boundary
Detection") and its `NLTKWordTokenizer`. What NLTK would download stands in `punkt_english.txt`, as far as a
rule asks for it: all abbreviations, starters and collocations of its model `punkt_tab` for English, and which
words occur in small letters, apart from those that also occur capitalised inside of sentences.
Four words of which it knows that small letters begin a sentence with them (`b-week`) are treated as the
others.

Punkt's patterns are those of NLTK 3.8.1 and 3.9.1, of the time when the published accuracies were computed:
the same sentences in 9,540 texts. 3.10 takes a typographic quote after a full stop for the end of a sentence,
which makes a difference to 1 in 540 prompts of IFEval. The words are those of the release installed, which
cuts `DON'T` and `'A` apart more often: 2 of 4,540 texts have another count of words in capitals than under
3.8.1.
"""

import collections
import pathlib
import re

from nltk import redos
from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktLanguageVars, PunktParameters, PunktSentenceTokenizer

# NLTK lets a match take five seconds by the clock, which would make a verdict depend on the machine's load.
redos.DEFAULT_TIMEOUT = 86_400.0

# Punkt's marks of where a word occurs.
_CAPITAL_INSIDE, _SMALL_INSIDE = 1 << 2, 1 << 5

_MARK = r"""[)";}\]*:@'({\[?!]"""  # may not stand in a word
_RUN = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
_BREAK = rf"\s|$|{_MARK}|{_RUN}"
_TOKEN = re.compile(rf"""{_RUN}|(?=[^("`{{\[:;&\#*@)}}\]\-,])\S+?(?={_BREAK}|,(?={_BREAK}))|\S""")
_END = re.compile(rf"[.?!](?=(?P<after_tok>{_MARK}|\s+(?P<next_tok>\S+)))")


class _Patterns(PunktLanguageVars):
  """How Punkt cuts text into tokens and candidate ends."""

  re_boundary_realignment = re.compile(r"""["')\]}]+?(?:\s+|(?=--)|$)""", re.MULTILINE)

  def word_tokenize(self, s):
    return _TOKEN.findall(s)

  def period_context_re(self):
    return _END


def _parameters() -> PunktParameters:
  text = pathlib.Path(__file__).with_name("punkt_english.txt").read_text(encoding="utf-8")
  lists = {name: words.split() for name, words in re.findall(r"^\[(\w+)\]$([^\[]*)", text, re.MULTILINE)}
  out = PunktParameters()
  out.abbrev_types = set(lists["abbreviations"])
  out.sent_starters = set(lists["starters"])
  out.collocations = {tuple(pair.split("|")) for pair in lists["collocations"]}
  # A Counter has 0 of any other word, and does not grow when it is read as the library's dict does.
  out.ortho_context = collections.Counter(dict.fromkeys(lists["ordinary"], _SMALL_INSIDE))
  out.ortho_context.update(dict.fromkeys(lists["titled"], _SMALL_INSIDE | _CAPITAL_INSIDE))
  return out


_PUNKT = PunktSentenceTokenizer(_parameters(), lang_vars=_Patterns())
_WORDS = NLTKWordTokenizer()


def sentences(text: str) -> list[str]:
  """The sentences of a text, in order; what has no letter counts too, as the `1.` of `1. Eggs` does."""
  return _PUNKT.tokenize(text)


def words(text: str) -> list[str]:
  """Words and punctuation marks, each a token; `don't` is `do` and `n't`, a hyphenated word is one."""
  return [word for sentence in sentences(text) for word in _WORDS.tokenize(sentence)]
