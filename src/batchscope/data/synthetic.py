"""A small, offline corpus of film reviews, made by a grammar, whose verdict lies in how its words are composed.

A review has a verdict and a frame. In most reviews the writer judges in their own voice; in some they repeat what
others say and then deny it, so that the verdict is the opposite of all the words before; in a few they repeat it and
confirm it. Some reviews open with the verdict itself. Sentences are plain ("the script is superb"), negated ("the
script is by no means dull"), concessive ("for all its charm, the script is dull") or set one thing against another ("a
fine cast is wasted on a dull script"). Words of praise and blame therefore occur in reviews of both verdicts, and a bag
of words sees only a part of the evidence. A few sentences speak for the other side, as in real reviews, and
``label_noise`` of the labels are flipped: no model tests above 1 - ``label_noise`` except by luck.

With 3,000 reviews (seed 0, 3% noise) TF-IDF with logistic regression reaches 0.755 on the 600 reviews outside the train
split of 2,400; a two-layer, 96-wide BERT that reads 96 tokens reaches 0.88 to 0.90 (three seeds) after three epochs in
batches of 16, and 0.81 in batches of 64 (learning rate 1e-3, one CPU thread, 25 seconds).
"""

from random import Random
from typing import NamedTuple

from batchscope.data.spec import SyntheticSpec

CLASSES = ("negative", "positive")

FRAMES = {"own": 0.69, "denied": 0.26, "confirmed": 0.05}
SENTENCES = {"plain": 0.55, "pair": 0.12, "negated": 0.1, "concession": 0.12, "contrast": 0.11}
OUTSPOKEN = 0.25
"""Share of the reviews that open with the verdict itself."""
DISSENT = 0.05
"""Share of the sentences that speak against the rest of their review."""

BLAME = ("tedious", "clumsy", "shallow", "dull", "lifeless", "predictable", "bland", "tiresome", "stale", "hollow")
PRAISE = ("superb", "moving", "clever", "gripping", "fine", "brilliant", "vivid", "witty", "fresh", "touching")
WORDS = (BLAME, PRAISE)
VERDICTS = (
    ("I want my money back.", "I nearly fell asleep.", "I regret the evening.", "spare yourself the ticket."),
    ("I want to see it again.", "I left the room happy.", "I recommend it warmly.", "buy yourself a ticket."),
)
CONCEDED = (("slow stretches", "rough edges", "clichés", "excess"), ("charm", "style", "energy", "beauty"))
CONTRAST = ("is wasted on", "makes up for")
NEGATORS = ("never", "not", "hardly", "by no means", "anything but", "not for a moment")
ASPECTS = (
    "script", "acting", "photography", "score", "editing", "dialogue", "ending", "pacing", "cast", "story", "direction",
)  # fmt: skip

VOICES = ("the critics", "my friends", "most people", "the papers", "my colleagues", "the neighbours")
REPORT = (
    "{voice} had told me what to expect:",
    "{voice} had warned me in so many words:",
    "before I went I read what {voice} say:",
    "{voice} all say the same:",
)
ANSWERS = {
    "denied": (
        "that is not the film I saw.",
        "none of that is true.",
        "they are mistaken.",
        "they are wrong about all of it.",
        "nothing could be further from the truth.",
    ),
    "confirmed": (
        "that is the film I saw.",
        "all of that is true.",
        "they are right.",
        "they are right about all of it.",
        "nothing could be closer to the truth.",
    ),
}

FILLER = (
    "I saw it on a {day} {time} with {company}.",
    "The film runs for about {minutes} minutes and was shot in {place}.",
    "It tells of a {person} who returns to {place} after the death of a {relative}.",
    "A {person} and a {person} meet on a train to {place} and decide to travel on together.",
    "The {relative} of the {person} turns up in the second act with a letter from {place}.",
    "There is a long scene in a kitchen, then another one on the road to {place}.",
    "The director made two short films before this one, both of them set in {place}.",
    "It was first shown at a festival in {place} and came to our cinema on a {day}.",
    "The music was recorded in {place} with a small orchestra.",
    "Half of the story is told by a {person}, the other half by the {relative} of a {person}.",
    "We sat in the back row and the room was about half full that {time}.",
    "The novel behind it was written by a {person} from {place}.",
)
SLOTS = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "time": ("morning", "afternoon", "evening", "night"),
    "company": ("my brother", "two friends", "my wife", "an aunt", "the whole family", "nobody else"),
    "minutes": ("eighty", "ninety", "a hundred", "a hundred and ten", "a hundred and forty"),
    "place": ("Lisbon", "Ohio", "the north", "Seoul", "a fishing village", "Berlin", "the desert", "Bombay", "Dublin"),
    "person": ("teacher", "detective", "sailor", "nurse", "pianist", "farmer", "soldier", "widow", "student", "cook"),
    "relative": ("father", "sister", "mother", "uncle", "cousin", "daughter"),
}


class Review(NamedTuple):
    """One review: ``label`` indexes ``CLASSES``, ``origin`` is ``train`` or ``test``."""

    text: str
    label: int
    origin: str


def synthetic_reviews(spec: SyntheticSpec) -> list[Review]:
    """Make ``spec.reviews`` reviews, a pure function of ``spec``.

    The first half has origin ``train``, the rest ``test``. Verdicts are balanced to within one review before
    exactly ``round(label_noise * reviews)`` labels are flipped.
    """
    random = Random(spec.seed)
    count = spec.reviews
    verdicts = [number % 2 for number in range(count)]
    random.shuffle(verdicts)
    texts = [_review(random, verdict) for verdict in verdicts]
    flipped = set(random.sample(range(count), round(spec.label_noise * count)))
    return [
        Review(text, verdict ^ (number in flipped), "train" if 2 * number < count else "test")
        for number, (text, verdict) in enumerate(zip(texts, verdicts, strict=True))
    ]


def _review(random: Random, verdict: int) -> str:
    """A review of 60 to 250 words; the first 60 to 90 decide the verdict, the rest is filler."""
    length = 60 + int(165 * random.random() ** 1.5)
    frame = _drawn(random, FRAMES)
    side = verdict ^ (frame == "denied")
    sentences = [_judgement(random, side ^ (random.random() < DISSENT)) for _ in range(random.randint(4, 6))]
    if frame == "own":
        sentences.insert(random.randrange(len(sentences)), _filler(random))
    else:
        sentences.insert(0, random.choice(REPORT).format(voice=random.choice(VOICES)))
        sentences += random.sample(ANSWERS[frame], random.randint(2, 3))
    if random.random() < OUTSPOKEN:
        sentences.insert(0, random.choice(VERDICTS[verdict]))
    while sum(len(sentence.split()) for sentence in sentences) < length:
        sentences.append(_filler(random))
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _judgement(random: Random, side: int) -> str:
    """A sentence that speaks for ``side``."""
    choice, form = random.choice, _drawn(random, SENTENCES)
    aspect, word, opposite = choice(ASPECTS), choice(WORDS[side]), choice(WORDS[1 - side])
    if form == "plain":
        return f"the {aspect} is {word}."
    if form == "pair":
        return f"a {word} {aspect} and a {choice(WORDS[side])} {choice(ASPECTS)}."
    if form == "negated":
        return f"the {aspect} is {choice(NEGATORS)} {opposite}."
    if form == "concession":
        return f"for all its {choice(CONCEDED[1 - side])}, the {aspect} is {word}."
    praised, blamed = choice(PRAISE), choice(BLAME)
    return f"a {praised} {aspect} {CONTRAST[side]} a {blamed} {choice(ASPECTS)}."


def _filler(random: Random) -> str:
    return random.choice(FILLER).format_map(_Slots(random))


def _drawn(random: Random, shares: dict[str, float]) -> str:
    return random.choices(list(shares), list(shares.values()))[0]


class _Slots(dict[str, str]):
    """Fills a template's slots at random."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __missing__(self, slot: str) -> str:
        return self._random.choice(SLOTS[slot])
