"""Classes and probabilities of new texts, from a file of any size, with a run's best checkpoint."""

import csv
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from batchscope.data.encode import Encoded, encode, needed_embeddings
from batchscope.data.streams import Text, text_parts
from batchscope.data.tokens import Tokens
from batchscope.errors import UserError, counted
from batchscope.evaluation.counts import log_softmax
from batchscope.evaluation.predict import predict
from batchscope.files import atomic
from batchscope.insight.finished_run import FinishedRun

log = logging.getLogger(__name__)
ROWS_AT_ONCE = 2048
SECONDS_BETWEEN_LOG_LINES = 60.0
NO_TEXT, NO_TOKEN = "no text", "no token that the model knows"


class Tally:
    """What became of the rows."""

    def __init__(self) -> None:
        self.rows = self.truncated = 0
        self.left: dict[str, list[int]] = {NO_TEXT: [], NO_TOKEN: []}
        """Reason → rows without a prediction; the first and, as a count, the others."""

    def leave(self, reason: str, row: int) -> None:
        """Count a row that gets no prediction."""
        self.left[reason] = [row, 1] if not self.left[reason] else [self.left[reason][0], self.left[reason][1] + 1]

    def in_words(self, max_length: int) -> str:
        """The sentence for the end of the log."""
        left = [
            f"{counted(found[1], 'row')} ({reason}; the first is row {found[0]:,}) got none"
            for reason, found in self.left.items()
            if found
        ]
        predicted = self.rows - sum(found[1] for found in self.left.values() if found)
        cut = f", {self.truncated:,} of them cut to {max_length} tokens" if self.truncated else ""
        return "; ".join([f"{counted(predicted, 'prediction')} for {counted(self.rows, 'row')}{cut}", *left])


def predict_file(run: FinishedRun, source: Path, column: str, output: Path) -> Tally:
    """Write a CSV with a row per row of ``source``: its number from 1, class, probabilities, and a note.

    A row without text keeps its place, with empty values and the reason as its note. Memory does not depend on the
    number of rows. Raises UserError for a file that cannot be read; nothing is written then.
    """
    if output.exists() and output.samefile(source):
        raise UserError(f"--output: {output} is the file that is read; give another name")
    tally, progress = Tally(), Progress()
    with atomic(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "prediction", "probability", *(f"p_{name}" for name in run.classes), "cut", "note"])
        for texts in text_parts(source, column, ROWS_AT_ONCE):
            writer.writerows(_predicted(run, texts, tally))
            progress.show(tally.rows)
    progress.close()
    return tally


def _predicted(run: FinishedRun, texts: Sequence[Text], tally: Tally) -> Iterator[list[object]]:
    """The rows of one part."""
    filled = [place for place, text in enumerate(texts) if text is not None]
    known, encoded = _encoded(run, [str(texts[place]) for place in filled])
    places = {filled[number]: rank for rank, number in enumerate(known)}
    probabilities = class_probabilities(run, encoded) if encoded is not None else np.empty((0, len(run.classes)))
    for place, text in enumerate(texts):
        tally.rows += 1
        if place not in places or encoded is None:
            reason = NO_TEXT if text is None else NO_TOKEN
            tally.leave(reason, tally.rows)
            yield [tally.rows, "", "", *("" for _ in run.classes), "", reason]
            continue
        found, cut = probabilities[places[place]], bool(encoded.truncated[places[place]])
        tally.truncated += cut
        best = int(found.argmax())
        yield [
            tally.rows,
            run.classes[best],
            *(f"{value:.6f}" for value in (found[best], *found)),
            str(cut).lower(),
            "",
        ]


def _encoded(run: FinishedRun, texts: list[str]) -> tuple[list[int], Encoded | None]:
    """Positions of the texts that have a token, and these encoded; None if there are none."""
    known = list(range(len(texts)))
    if not texts:
        return [], None
    try:
        return known, encode(run.tokenizer, texts, run.max_length, run.truncation)
    except UserError:  # of one text or several: a tokenizer without special tokens that knows no character of it
        known = [number for number in known if _has_tokens(run, texts[number])]
    kept = [texts[number] for number in known]
    return known, encode(run.tokenizer, kept, run.max_length, run.truncation) if kept else None


def _has_tokens(run: FinishedRun, text: str) -> bool:
    try:
        encode(run.tokenizer, [text], run.max_length, run.truncation)
    except UserError:
        return False
    return True


def class_probabilities(run: FinishedRun, encoded: Encoded) -> NDArray[np.float64]:
    """Class probabilities ``[N, C]`` of N encoded texts, as the study's evaluation computes them."""
    count = len(encoded.length)
    tokens = Tokens(
        example_id=np.arange(count),
        label=np.zeros(count, np.int64),
        input_ids=encoded.input_ids,
        length=encoded.length,
        truncated=encoded.truncated,
        classes=run.classes,
        pad_token_id=run.tokenizer.pad_token_id,
        vocabulary_size=needed_embeddings(run.tokenizer),
    )
    return np.exp(log_softmax(predict(run.model, tokens, *run.place)))


class Progress:
    """A live line in a terminal, a line per minute in a log."""

    def __init__(self) -> None:
        self.began = self.logged = time.monotonic()
        self.bar = tqdm(unit=" rows", disable=not sys.stderr.isatty(), leave=False)

    def show(self, rows: int) -> None:
        """``rows`` are done."""
        self.bar.update(rows - self.bar.n) if not self.bar.disable else None
        if self.bar.disable and time.monotonic() - self.logged >= SECONDS_BETWEEN_LOG_LINES:
            self.logged = time.monotonic()
            log.info(f"{rows:,} rows, {rows / (self.logged - self.began):.0f} rows/s")

    def close(self) -> None:
        """Clear the line."""
        self.bar.close()
