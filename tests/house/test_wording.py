"""What one text of the data is called, in sentences that were written for reviews."""

import pytest

from batchscope.config.schema import Data
from batchscope.errors import counted
from batchscope.wording import REVIEWS, Wording, plural

TICKETS = Wording("ticket", "tickets")


@pytest.mark.parametrize(
    ("noun", "many"),
    [
        ("ticket", "tickets"),
        ("query", "queries"),
        ("essay", "essays"),
        ("batch", "batches"),
        ("epoch", "epochs"),
        ("tax", "taxes"),
    ],
)
def test_regular_plurals(noun: str, many: str) -> None:
    assert plural(noun) == many
    assert counted(2000, noun) == f"2,000 {many}" and counted(1, noun) == f"1 {noun}"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("read 120 reviews of reviews.csv as train", "read 120 tickets of reviews.csv as train"),
        ("Reviews like these. A review's title.", "Tickets like these. A ticket's title."),
        ("results/a/data/reviews.json: a review", "results/a/data/reviews.json: a ticket"),
        ("all are of class 'review', `review` or \"reviews\"", "all are of class 'review', `review` or \"reviews\""),
        ("reviewers preview re-review", "reviewers preview re-review"),
    ],
)
def test_only_the_word_that_stands_free_is_replaced(said: str, expected: str) -> None:
    assert TICKETS.of(said) == expected
    assert REVIEWS.of(said) == said


def test_the_article_goes_with_the_noun() -> None:
    issues = Wording("issue", "issues")
    assert issues.of("A review, and a review; a test review") == "An issue, and an issue; a test issue"


def test_a_class_of_that_name_is_left_alone() -> None:
    assert TICKETS.beside(["bug", "Review"]) == REVIEWS
    assert TICKETS.beside(["bug"]) == TICKETS


def test_the_config_gives_both_forms() -> None:
    assert Data(source="synthetic").wording == REVIEWS
    assert Data(source="synthetic", unit="query").wording == ("query", "queries")
    assert Data(source="synthetic", unit="child", units="children").wording == ("child", "children")
