"""Reads YAML and JSON as people write it: a mistake in the text is one message with its line.

Some of YAML reads otherwise than it looks, and is refused here, because the study would not be the one that its author
reads: a key that is there twice in one section, of which the last counts; ``010``, which is 8; ``1:30``, which is 90.
"""

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from batchscope.errors import UserError

MERGE = "tag:yaml.org,2002:merge"


MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""Octal and sexagesimal numbers."""
MOST_VALUES = 1_000_000


class MisleadingError(yaml.MarkedYAMLError):  # type: ignore[misc]
    """Text that means something else than it looks; ``problem`` says what to do."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """As PyYAML's, but MisleadingError for what its author cannot have meant."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _values(node, {}) > MOST_VALUES:
            raise MisleadingError(problem=f"with its `&` and `*` written out it has over {MOST_VALUES:,} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[Hashable, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            name, line = self.construct_object(key), key.start_mark.line + 1
            if name in first:
                told = f"the key `{key.value}` is there twice, in lines {first[name]} and {line}; take one of them out"
                raise MisleadingError(problem=told)
            first[name] = line
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        construct = self.construct_yaml_float if node.tag.endswith("float") else self.construct_yaml_int
        number: int | float = construct(node)
        if MISREAD.fullmatch(node.value):
            told = f"`{node.value}` in line {node.start_mark.line + 1} is the number {number} to YAML"
            raise MisleadingError(problem=f"{told}; write {number}, or '{node.value}' in quotation marks for a text")
        return number


for kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{kind}", _Loader.construct_number)


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for; ``known`` holds those of the nodes that were met before."""
    if id(node) not in known:
        known[id(node)] = 0  # what holds itself
        inside = [] if isinstance(node, yaml.ScalarNode) else node.value
        parts = (part for entry in inside for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def read_mapping(path: Path, what: str) -> dict[object, object]:
    """The mapping of a YAML or JSON file. Raises UserError, which calls it ``what``, such as `the config x.yaml`."""
    if path.is_fifo():
        raise UserError(f"{what} is a pipe, and it is read more than once: save it as a file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_json = _is_json(text)
        content = yaml.load(text.replace("\t", " ") if is_json else text, Loader=_Loader)
        if is_json:  # in which tabs may indent, and an emoji may be written as two escapes
            content = json.loads(text)
    except OSError as error:
        raise UserError(f"cannot read {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{what} is not UTF-8 text: save it as UTF-8") from None
    except MisleadingError as error:
        raise UserError(f"{what}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = "sections in sections without end" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{what} is not valid YAML: {words}") from None
    if not isinstance(content, dict):
        raise UserError(f"{what} must be a mapping of keys to values")
    return content


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
