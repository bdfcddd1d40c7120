"""Each of IFEval's instructions against texts that keep and break it, with numbers a reader can count."""

from tables import failed_rows

from o1jax.verifiers.ifeval.instructions import INSTRUCTIONS, read_arguments

LEAST, LESS = "at least", "less than"
ENGLISH = "the boy walked to the old house by the river and sat down with his mother and his friends"
GERMAN = "der junge ging zu dem alten haus am fluss und setzte sich zu seiner mutter und seinen freunden"

# instruction -> rows of (arguments, texts that keep to it under these, texts that do not).
TABLE = {
  "change_case:capital_word_frequency": [
    (
      {"capital_frequency": 2, "capital_relation": LEAST},
      [
        "STOP and GO",
        "I know A trick.",
        "IT'S fine",
        "U.S. AND them",
        "GO!GO",
        "A-B I",
        "ÄRGER ÖL",
        "(NO) [NO]",
      ],
      ["STOP and go", "Stop And Go", "STOP-AND-GO now", "Ab1 x 12 34", "12 34 56", "日本 語", "aSTOP GO"],
    ),
    ({"capital_frequency": 2, "capital_relation": LESS}, ["STOP and go", "none"], ["STOP and GO", "I, A, I"]),
  ],
  "change_case:english_capital": [
    ({}, [ENGLISH.upper(), ENGLISH.upper() + " 12!"], [ENGLISH, ENGLISH.capitalize(), GERMAN.upper()]),
    # Cased letters are asked for, and what langdetect cannot read passes.
    ({}, [ENGLISH.upper() + " 日本"], ["123", "!?", ENGLISH.upper() + "ß"]),
  ],
  "change_case:english_lowercase": [
    (
      {},
      [ENGLISH, ENGLISH + ", 12!"],
      [ENGLISH.upper(), ENGLISH + " I.", GERMAN, "123", "...", ENGLISH + "É"],
    ),
  ],
  "combination:repeat_prompt": [
    (
      {"prompt_to_repeat": "Write a poem. "},
      ["Write a poem.", "  \nwrite a POEM.\nRoses", "Write a poem.Roses"],
      ["Write a poem", 'Sure. "Write a poem."', '"Write a poem."', "Write  a poem.", "*Write a poem.*"],
    ),
  ],
  "combination:two_responses": [
    (
      {},
      [
        "a******b",
        "******a******b******",
        "a\n\n******\r\n\r\nb",
        "a*******b",
        "a******a b",
        " ****** a******b",
      ],
      ["a", "a*****b", "a******a", "a****** a \n", "a************b", "a******b******c", "******", "a******"],
    ),
    ({}, ["a******A", "a******b*****"], ["a******   ******b", "a** ****b"]),
  ],
  "detectable_content:number_placeholders": [
    (
      {"num_placeholders": 2},
      ["[a] [b]", "[][]", "[a][b][c]", "[[a]] [b]", "[ ]\n[é]", "[a]]]] [b]", "[a [b] c]]] [d]", "[a\r] [b]"],
      ["[a]", "[a\n] [b]", "[[a]]", "[a b]", "]a[ ]b[", "(a) (b)", "[a] [b", "［a］［b］"],
    ),
  ],
  "detectable_content:postscript": [
    (
      {"postscript_marker": "P.S."},
      ["Bye.\nP.S. Hi", "p.s. hi", "P. S. hi", "P.P.S. hi", "ship.s.", "P.S.\r\nhi", "P.\nS. hi"],
      ["P.S hi", "PS. hi", "P.  S. hi", "P S. hi", "Postscript: hi", "P.s"],
    ),
    (
      {"postscript_marker": "P.P.S"},
      ["P.P.S hi", "p.p.s. hi", "P. P. S hi", "p.p. sorry", "P.\nP.S"],
      ["P.S. hi", "PPS hi", "P.P. hi", "P.P.  S", "P..P.S", "P.P"],
    ),
    ({"postscript_marker": "N.B."}, ["n.b. hi", "nxbx"], ["NB hi", "n.b", "n.b\n."]),
  ],
  "detectable_format:constrained_response": [
    (
      {},
      ["My answer is yes.", "\nMy answer is no. \n", "**My answer is maybe.** Well", '"My answer is no."'],
      [
        "My answer is yes",
        "my answer is yes.",
        "My answer is Yes.",
        "My answer is  no.",
        "yes.",
        "My answer is: no.",
      ],
    ),
  ],
  "detectable_format:json_format": [
    (
      {},
      [
        '{"a": 1}',
        '```json\n{"a": 1}\n```',
        "```\n[]\n```",
        '```JSON {"a": [1]}```',
        '"a"',
        " 12 ",
        "NaN",
        "null",
      ],
      [
        '{"a": 1',
        "{'a': 1}",
        'Here: {"a": 1}',
        '{"a": 1} ok',
        "```js\n[]\n```",
        "[1,]",
        "```",
        '{"a": 01}',
        "yes",
      ],
    ),
    (
      {},
      ['{"é": "日"}', '{"a": 1, "a": 2}', "[]\r\n```", "```Json\n[]"],
      ['{"a": "\n"}', "9" * 5000, "“a”", "[] // x"],
    ),
    ({}, ["[" * 200 + "]" * 200], ["[" * 200]),
  ],
  "detectable_format:multiple_sections": [
    (
      {"section_spliter": "Section", "num_sections": 2},
      [
        "Section 1\na\nSection 2\nb",
        "Section1Section2",
        "Section 1 Section 1",
        "xSection 12\rSection\n3",
        "**Section 1** Section 9",
      ],
      [
        "Section 1",
        "Section 1 section 2",
        "SECTION 1 SECTION 2",
        "Section A Section B",
        "Section  1 Section  2",
        "Section: 1, Section: 2",
      ],
    ),
    (
      {"section_spliter": " Day ", "num_sections": 1},
      ["Day 1", "Sunday Day 0", "Day ٣"],
      ["day 1", "Day one", "Days 1"],
    ),
  ],
  "detectable_format:number_bullet_lists": [
    (
      {"num_bullets": 2},
      [
        "* a\n* b",
        "- a\n* b",
        "-a\n-b",
        "  * a\n\t- b",
        "* a\r\n* b",
        "text\n\n\n* a\n\n- b\n",
        "---\n* a",
        "*a*\n*b*",
      ],
      [
        "* a",
        "* a\n* b\n* c",
        "** a\n** b",
        "+ a\n+ b",
        "1. a\n2. b",
        "x * a\nx - b",
        "• a\n• b",
        "*\n* a",
        "*",
      ],
    ),
    ({"num_bullets": 1}, ["*\n* a", "* a", "-", "- - a", "*\n**a**"], ["**a**", "*a\n*b", "—a", "-\n-", ""]),
  ],
  "detectable_format:number_highlighted_sections": [
    (
      {"num_highlights": 2},
      ["*a* *b*", "**a** *b*", "**a** **b**", "*a*b*c*", "*a\rb* *c*", "* a * b *c*", "***a***"],
      ["*a*", "**a**", "_a_ _b_", "*a\nb* *c*", "****", "* * * *", "*a b", "\\*a", "＊a＊ ＊b＊"],
    ),
    (
      {"num_highlights": 1},
      ["*a*", "**a**", "2 * 3 * 4", "* a\n*b*"],
      ["* a\n* b", "**", "**\n**", "* *", "a"],
    ),
  ],
  "detectable_format:title": [
    (
      {},
      ["<<a>>", "<<  a  >>\nb", "x <<a b>> y", "<<<a>>>", "<<a<<b>>", "<<a\r>>", "<<é>>", "<< >> a>>"],
      ["<a>", "<<>>", "<< >>", "<<a\n>>", "<<a>", ">>a<<", "<<<>>>", "«a»", "<<a> >", "<<>>>>>"],
    ),
  ],
  "keywords:existence": [
    (
      {"keywords": ["rain", "Sun"]},
      ["rain and sun", "RAIN SUNDAY", "train\nsunk", "sun, rain", "raiN-sUn"],
      ["rain", "sun", "ra in sun", "rain s.un", "rаin sun (a Cyrillic letter)", "reign son"],
    ),
    ({"keywords": ["b.t"]}, ["bat", "a BUT b", "b.t"], ["bt", "b\nt", "boat"]),
  ],
  "keywords:forbidden_words": [
    (
      {"forbidden_words": ["sun", "Rain"]},
      ["sunny", "trains", "a_sun", "sun1", "s-un", "moon"],
      ["sun", "The SUN.", "rain-bow", "(rain)", "a sun's", "sun\n", "日 sun 日"],
    ),
    (
      {"forbidden_words": ["ice cream"]},
      ["ice  cream", "nice cream", "ice creams"],
      ["Ice Cream!", "ice cream"],
    ),
  ],
  "keywords:frequency": [
    (
      {"keyword": "fun ", "frequency": 2, "relation": LEAST},
      ["fun fun", "FUN, Funny", "funfun", "refund fungus"],
      ["fun", "f un fun", "funds", "", "fu nfu"],
    ),
    (
      {"keyword": "fun", "frequency": 2, "relation": LESS},
      ["fun", "none"],
      ["fun fun", "Fun refund", "FUN fun fun"],
    ),
    ({"keyword": "aa", "frequency": 2, "relation": LEAST}, ["aaaa", "aa b aa"], ["aaa", "a a a a"]),
  ],
  "keywords:letter_frequency": [
    (
      {"letter": "a", "let_frequency": 3, "let_relation": LEAST},
      ["aaa", "Banana", "A a A", "aaaa"],
      ["aa", "bana", "ααα", "ààà", "a a"],
    ),
    ({"letter": "A", "let_frequency": 3, "let_relation": LESS}, ["aa", "AA", "b"], ["aaa", "AaA", "Banana"]),
    ({"letter": "#", "let_frequency": 2, "let_relation": LEAST}, ["##", "#a #b"], ["#", "＃＃"]),
  ],
  "language:response_language": [
    ({"language": "de"}, [GERMAN, GERMAN.upper(), "123", "!?", "4 + 5"], [ENGLISH]),
    (
      {"language": "en"},
      [ENGLISH, ENGLISH + " (日本)", "https://example.org/" + GERMAN.replace(" ", "/")],
      [GERMAN],
    ),
    (
      {"language": "hi"},
      ["यह एक छोटा सा वाक्य है जो हिंदी में लिखा गया है"],
      [ENGLISH, "これは日本語の短い文章です"],
    ),
    ({"language": "zh-cn"}, ["这是一个用中文写的很短的句子"], [GERMAN]),
  ],
  "length_constraints:nth_paragraph_first_word": [
    (
      {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Once"},
      [
        "a\n\nonce more",
        "a\n\nONCE, b",
        "a\n\n'once' b",
        'a\n\n"once" b',
        "a\n\n  once",
        "a\n\nonce's",
        "a\n\nonce\n\n",
        "\n\nonce\n\na",
      ],
      [
        "a\n\nupon",
        "once\n\na",
        "a\n\nonce\n\nb",
        "a\nonce",
        "a\r\n\r\nonce",
        "a\n\n*once*",
        "a\n\nonce-off",
        "a\n\n(once)",
        "a\n\n\"'once'",
      ],
    ),
    # The third of two that are filled is not looked at, nor is a blank one among them passed over.
    (
      {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "once"},
      ["once\n\n\n\na", "once\n\na"],
      ["\n\nonce\n\na", "once"],
    ),
    (
      {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "déjà"},
      ["Déjà vu", "DÉJÀ."],
      ["deja", "déjà\n\nvu"],
    ),
  ],
  "length_constraints:number_paragraphs": [
    (
      {"num_paragraphs": 2},
      [
        "a***b",
        "a\n\n***\n\nb",
        "***a***b***",
        "a *** b",
        "a\r\n***\r\nb",
        "a****b",
        " *** a***b",
        "***a***b",
      ],
      ["a", "a\n\nb", "a***b***c", "a******b", "a* * *b", "a---b", "a***", "a*** ***b", "***"],
    ),
    ({"num_paragraphs": 1}, ["a", "a\n\nb", "***a", "**a**", "a***"], ["a***b", "a******", "***"]),
  ],
  "length_constraints:number_sentences": [
    (
      {"num_sentences": 3, "relation": LEAST},
      [
        "Ann ate. Cid ran! Eve sat?",
        "One. Two. Three. Four.",
        "1. Eggs\n2. Ham",
        "Yes? No! (Well.)",
        "I, e.g. you, go. Go.",
      ],
      [
        "Ann ate. Cid ran!",
        "Mr. Day met Dr. Fox. He left.",
        "Hm... well. Yes",
        "a.b.c",
        "No full stop\nhere\nor there",
        "It is 3.14. Yes",
      ],
    ),
    (
      {"num_sentences": 3, "relation": LESS},
      ["Ann ate. Cid ran!", "At 5 p.m. we left. Yes.", "Yes!!! No", '"Go." "Stay."', "日本。日本。日本。"],
      ["Ann ate. Cid ran! Eve sat?", "It is so. We go. You stay.", "Go.\r\nStay.\r\nWait."],
    ),
  ],
  "length_constraints:number_words": [
    (
      {"num_words": 3, "relation": LEAST},
      ["one two three", "don't go", "a-b-c", "1,000.5", "a b  c d", "été à Évry", "日 本 語"],
      ["one two", "don't", "a_b c", "* - ! a", "日本語", "...", "x y"],
    ),
    ({"num_words": 3, "relation": LESS}, ["one two", "a_b_c d"], ["one two three", "a-b-c", "a\r\nb\r\nc"]),
  ],
  "punctuation:no_comma": [
    ({}, ["a b", "a; b", "a、b", "a，b", "1.000", "a‚b"], ["a, b", ",", "1,000", "a\n,\nb", '","', "日,本"]),
  ],
  "startend:end_checker": [
    (
      {"end_phrase": "Any other questions? "},
      [
        "Hi. Any other questions?",
        "any OTHER questions?\n",
        '"Hi. Any other questions?"',
        "Many other questions?",
      ],
      [
        "Any other questions",
        "Any other questions? No.",
        "Any other questions?*",
        "**Any other questions?**",
        "Any  other questions?",
        "“Any other questions?”",
      ],
    ),
  ],
  "startend:quotation": [
    (
      {},
      ['"a"', ' "a" b" \n', '""', '"a\r\n"', '"é"', '"""'],
      ['"', '"a', 'a"', "'a'", "“a”", '"a".', '*"a"*'],
    ),
  ],
}
ROWS = [
  (name, arguments, text, wanted)
  for name, rows in TABLE.items()
  for arguments, followed, broken in rows
  for texts, wanted in ((followed, True), (broken, False))
  for text in texts
]


def check_reading(name, arguments, text, followed):
  assert INSTRUCTIONS[name](text, "", **read_arguments(name, arguments)) is followed


def test_table():
  assert failed_rows(check_reading, ROWS) == []


def test_every_instruction_is_kept_and_broken_in_the_table():
  assert TABLE.keys() == INSTRUCTIONS.keys()
  assert len(TABLE) == 25
  assert all(sum(len(kept) + len(broken) for _, kept, broken in rows) >= 6 for rows in TABLE.values())
