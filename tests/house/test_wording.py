"""What one text of the data is called, in sentences that were written for reviews."""

import json
import logging
from pathlib import Path

import pytest

from batchscope.cli.main import Messages, main
from batchscope.config.schema import Data
from batchscope.errors import counted
from batchscope.wording import REVIEWS, Wording, plural, visible

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


# ------------------------------------------------------------------------------------------ text for a terminal

HOSTILE = "\x1b[2J\x1b]0;title\x07 a\rb \u202etxt.exe \u200bc\ufeff \x9b31m \ud800 <b> $x$ $(id)"
SHOWN = r"\x1b[2J\x1b]0;title\x07 a\rb \u202etxt.exe \u200bc\ufeff \x9b31m \ud800 <b> $x$ $(id)"


def test_what_steers_a_terminal_is_shown_as_escapes() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible(SHOWN) == SHOWN


@pytest.mark.parametrize(
    "text", ["Żółć\n\ta", "مراجعة", "影评", "❤️ \U0001f3f3\ufe0f\u200d\U0001f308", "نمی\u200cخواهم"]
)
def test_other_scripts_and_joined_characters_stay(text: str) -> None:
    assert visible(text) == text


def test_no_line_of_a_log_steers_a_terminal() -> None:
    record = logging.LogRecord("batchscope", logging.WARNING, "", 0, "left out: %s", (HOSTILE,), None)
    assert Messages("%(message)s").format(record) == f"left out: {SHOWN}"


def test_titles_and_sources_do_not_steer_the_terminal_of_forensics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = HOSTILE.replace("\ud800", "")
    cells = [{"model": "a", "policy": "p", "batch": size, "accuracy": 0.9} for size in (16, 64)]
    studies = {"mine": {"source": text, "examples": 1000, "cells": cells}}
    (tmp_path / "x.json").write_text(json.dumps({"title": text, "studies": studies}))
    main(["forensics", str(tmp_path / "x.json")])
    said = capsys.readouterr()
    assert SHOWN.replace(r"\ud800", "") in said.out and "\x1b" not in said.out + said.err


def test_a_message_about_a_hostile_path_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["forensics", "no\x1b[2Jthing.yaml"])
    assert r"no\x1b[2Jthing.yaml" in str(ended.value)
