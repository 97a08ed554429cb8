"""The embedded corpus is reproducible, balanced, and no bag of words solves it."""

import hashlib

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from batchscope.data.spec import SyntheticSpec
from batchscope.data.synthetic import BLAME, CLASSES, PRAISE, Review, synthetic_reviews

SPEC = SyntheticSpec(reviews=3000, seed=0, label_noise=0.03)


@pytest.fixture(scope="module")
def reviews() -> list[Review]:
    return synthetic_reviews(SPEC)


def test_it_is_a_function_of_its_spec(reviews: list[Review]) -> None:
    assert reviews == synthetic_reviews(SPEC)
    assert [r.text for r in reviews] != [r.text for r in synthetic_reviews(SPEC.model_copy(update={"seed": 1}))]


def test_it_is_the_same_on_every_machine(reviews: list[Review]) -> None:
    text = "\n".join(f"{review.label} {review.text}" for review in reviews)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "0423611f18711145"


def test_lengths_labels_and_origins(reviews: list[Review]) -> None:
    lengths = [len(review.text.split()) for review in reviews]
    assert min(lengths) >= 60
    assert max(lengths) <= 250
    assert len(CLASSES) == 2
    assert [review.origin for review in reviews] == ["train"] * 1500 + ["test"] * 1500
    assert abs(sum(review.label for review in reviews) - 1500) <= 0.03 * 3000
    assert len({review.text for review in reviews}) == 3000


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_label_noise_flips_exactly_its_share_and_leaves_the_texts(share: float) -> None:
    clean, noisy = (synthetic_reviews(SPEC.model_copy(update={"label_noise": noise})) for noise in (0.0, share))
    assert sum(review.label for review in clean) == 1500
    flips = sum(a.label != b.label for a, b in zip(clean, noisy, strict=True))
    assert flips == round(share * 3000)
    assert [review.text for review in clean] == [review.text for review in noisy]


def test_praise_and_blame_stand_in_reviews_of_both_verdicts(reviews: list[Review]) -> None:
    for word in PRAISE + BLAME:
        labels = [review.label for review in reviews if word in review.text]
        assert 0.25 < np.mean(labels) < 0.75, word


def test_a_bag_of_words_does_not_solve_it(reviews: list[Review]) -> None:
    texts, labels = [review.text for review in reviews], [review.label for review in reviews]
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    classifier = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(texts[:2400]), labels[:2400])
    assert 0.65 < classifier.score(vectorizer.transform(texts[2400:]), labels[2400:]) < 0.85
