"""Reads YAML and JSON as people write it: a mistake in the text is one message with its line.

YAML lets a key stand twice in one section, and the last one counts. Here that is a mistake: the study would not be the
one that its author reads.
"""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from batchscope.errors import UserError

MERGE = "tag:yaml.org,2002:merge"


class RepeatedKeyError(yaml.MarkedYAMLError):  # type: ignore[misc]
    """A key that stands twice in one section."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML does, but RepeatedKeyError for a key that is there twice."""
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in first:
                told = f"the key `{key.value}` is there twice, in lines {first[name]} and {line}"
                raise RepeatedKeyError(problem=told)
            first[name] = line
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


def read_mapping(path: Path, what: str) -> dict[object, object]:
    """The mapping of a YAML or JSON file. Raises UserError, which calls it ``what``, such as `the config x.yaml`."""
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
    except RepeatedKeyError as error:
        raise UserError(f"{what}: {error.problem}; take one of them out") from None
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
