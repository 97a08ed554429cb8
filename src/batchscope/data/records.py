"""The JSON files of the data stages, key by key: ``data/audit.json`` and ``data/reviews.json``."""

from typing import Literal, TypedDict

SplitName = Literal["train", "validation", "test"]


class Spread(TypedDict):
    """The distribution of a number over the reviews of one split."""

    minimum: int
    """Smallest value."""
    median: float
    """Median."""
    mean: float
    """Mean."""
    maximum: int
    """Largest value."""


class SplitFacts(TypedDict):
    """The reviews of one split."""

    reviews: int
    """Number of reviews."""
    per_class: dict[str, int]
    """Class name → number of its reviews, in label order."""
    words: Spread
    """Words per review; a word is what white space separates."""


class TokenLengths(TypedDict):
    """The reviews of one split as a model reads them."""

    length: Spread
    """Tokens per review, special tokens included, after the cut to ``max_length``."""
    truncated: int
    """Reviews with more tokens than ``max_length`` has room for. How many more is not counted: they are cut first."""
    truncated_share: float
    """``truncated`` / reviews of the split."""
    padding: int
    """Padding tokens."""
    padding_share: float
    """``padding`` / (reviews of the split × ``max_length``)."""


class ModelTokens(TypedDict):
    """The tokens of one model."""

    max_length: int
    """Tokens per review, padding included."""
    vocabulary_size: int
    """The tokenizer's highest id and one."""
    splits: dict[SplitName, TokenLengths]
    """Split → its lengths."""


class Crossing(TypedDict):
    """Reviews of one split whose text also appears in another split."""

    split: SplitName
    """The split whose reviews are counted."""
    other: SplitName
    """The split that holds the same texts."""
    reviews: int
    """Number of such reviews of ``split``."""
    share: float
    """``reviews`` / reviews of ``split``."""


class Duplicates(TypedDict):
    """Texts that are equal character for character."""

    groups: int
    """Distinct texts that occur more than once."""
    redundant: int
    """Reviews to remove so that every text occurs once."""
    conflicting_groups: int
    """Groups whose reviews have different labels."""
    conflicting_reviews: int
    """Reviews in those groups."""
    within_origin: dict[str, int]
    """The source's own split → reviews to remove so that every text occurs once in it."""
    within_split: dict[SplitName, int]
    """Split → reviews to remove so that every text occurs once in it."""
    crossing: list[Crossing]
    """All ordered pairs of different splits."""


class ReadPart(TypedDict):
    """A part of the source that was read: a file, a folder of text files, or a split of the hub."""

    name: str
    """Its path below the source, or the name of the split."""
    origin: SplitName
    """The source's own split that it belongs to; ``train`` where the source has none."""
    reviews: int
    """Its reviews, before ``data.sample``."""


class LeftOut(TypedDict):
    """A part of the source that was not read."""

    name: str
    """Its path below the source; of several files in one folder the first, and how many more."""
    reason: str
    """Why, in words."""


class SourceRecord(TypedDict):
    """What was read of the source and what was not: together they are all of it."""

    read: list[ReadPart]
    """The parts that were read, in the order of the corpus."""
    left_out: list[LeftOut]
    """The parts that were not read."""


class Audit(TypedDict):
    """``data/audit.json``: what is in the data. Every share comes with the counts that give it."""

    reviews: int
    """Number of reviews in the corpus."""
    classes: list[str]
    """Class names in label order."""
    source: SourceRecord
    """What was read of the source and what was left out."""
    splits: dict[SplitName, SplitFacts]
    """Split → its reviews."""
    tokens: dict[str, ModelTokens]
    """Model → its tokens."""
    duplicates: Duplicates
    """Equal texts in the corpus, within its parts and across the splits."""


class Baseline(TypedDict):
    """How well the bag of words does on the held-out reviews."""

    name: str
    """What it is, in words."""
    validation_correct: int
    """Validation reviews that it labels correctly."""
    validation_examples: int
    """Validation reviews."""
    test_correct: int
    """Test reviews that it labels correctly."""
    test_examples: int
    """Test reviews."""


class ShownReview(TypedDict):
    """A text whose attention is shown."""

    name: str
    """File name of its maps."""
    title: str
    """Heading of its maps."""
    text: str
    """The whole text."""
    example_id: int | None
    """Row of the corpus; None for a text of the config."""
    label: int | None
    """Index of its class; None for a text of the config."""
    baseline_probability: float | None
    """Probability that the baseline gives to ``label``; None for a text of the config."""


class ReviewsFile(TypedDict):
    """``data/reviews.json``: the texts whose attention is shown, and how they were chosen."""

    rule: str
    """The rule of the choice, in words."""
    baseline: Baseline
    """The classifier that chooses, and is a yardstick for the encoders."""
    reviews: list[ShownReview]
    """The texts, in the order in which they are shown."""
