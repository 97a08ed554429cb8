"""Metrics against scikit-learn, SciPy and slow references."""

import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, recall_score

from batchscope.evaluation.metrics import calibration_error, measure


def logits_and_labels(classes=2, examples=997):
    random = np.random.default_rng(0)
    logits = random.normal(size=(examples, classes)).astype(np.float32) * 3
    return logits, random.integers(0, classes, examples)


def reference_brier(probabilities, labels):
    total = 0.0
    for row, label in zip(probabilities, labels, strict=True):
        total += sum((p - (c == label)) ** 2 for c, p in enumerate(row))
    return total / len(labels)


def reference_calibration_error(confidence, correct, bins=15):
    total = 0.0
    for number in range(bins):
        inside = [i for i, c in enumerate(confidence) if number / bins < c <= (number + 1) / bins]
        if inside:
            accuracy = np.mean([correct[i] for i in inside])
            total += len(inside) / len(correct) * abs(accuracy - np.mean([confidence[i] for i in inside]))
    return total


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_agree_with_the_references(classes):
    logits, labels = logits_and_labels(classes)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    scores = measure(logits, labels)
    assert scores["accuracy"] == accuracy_score(labels, logits.argmax(1))
    assert scores["correct"] == accuracy_score(labels, logits.argmax(1), normalize=False)
    assert scores["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(classes)), rel=1e-12)
    assert scores["brier"] == pytest.approx(reference_brier(probabilities, labels), rel=1e-12)
    confidence, correct = probabilities.max(1), logits.argmax(1) == labels
    assert scores["ece"] == pytest.approx(reference_calibration_error(confidence, correct), rel=1e-9)


@pytest.mark.parametrize("present", [[0, 1], [0, 1, 2], [0, 2, 3, 4], [4]])
def test_class_metrics_agree_with_scikit_learn(present):
    """Five classes, of which some have no example; one of them is still predicted now and then."""
    logits, labels = logits_and_labels(5)
    share = np.arange(1, len(present) + 1) / sum(range(len(present) + 1))
    labels = np.random.default_rng(1).choice(present, len(labels), p=share)
    logits[:, 3] -= 100
    predictions = logits.argmax(1)
    scores = measure(logits, labels)
    assert scores["confusion"] == confusion_matrix(labels, predictions, labels=range(5)).tolist()
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"), rel=1e-15)
    recall = recall_score(labels, predictions, labels=range(5), average=None, zero_division=np.nan)
    assert scores["recall"] == [None if np.isnan(value) else value for value in recall]
    json.dumps(scores, allow_nan=False)


def test_a_model_that_predicts_one_class_has_a_macro_f1_of_its_recall():
    """Of 9 and 1 examples all predicted as the first class: F1 is 18/19 and 0."""
    scores = measure(np.tile([1.0, 0.0], (10, 1)), np.array([0] * 9 + [1]))
    assert scores["macro_f1"] == pytest.approx(9 / 19)
    assert scores["recall"] == [1.0, 0.0]


def test_the_last_short_batch_weighs_no_more_than_its_reviews():
    """The reference study's mean of per-batch accuracies differs from the accuracy; ours does not."""
    logits, labels = logits_and_labels(examples=5000)
    correct = logits.argmax(1) == labels
    mean_of_batch_means = np.mean([correct[start : start + 32].mean() for start in range(0, 5000, 32)])
    assert measure(logits, labels)["accuracy"] == correct.sum() / 5000
    assert mean_of_batch_means != correct.sum() / 5000


def test_extreme_logits_stay_finite():
    scores = measure(np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32), np.array([0, 0]))
    assert scores["nll"] == pytest.approx(1e4)
    assert scores["accuracy"] == 0.5


def test_perfect_confidence_and_boundaries_fall_into_the_right_bins():
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0.0
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
