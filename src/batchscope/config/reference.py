"""The config's JSON schema and key table, made from ``Study``: the model is the only place where a key is explained.

python -m batchscope.config.reference --write      regenerate both
python -m batchscope.config.reference --check      exit with 1 if one of them is out of date
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchscope.config.study import Study
from batchscope.files import write_text

REPOSITORY = Path(__file__).resolve().parents[3]
SCHEMA = Path("workflow/schemas/config.schema.json")
README = Path("config/README.md")
BEGIN = "<!-- keys: made by `make docs` from src/batchscope/config/study.py -->"
END = "<!-- end of keys -->"

Schema = dict[str, Any]


def schema_text() -> str:
    """The JSON schema of a config file, for editors and other tools."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Study.model_json_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def key_table() -> str:
    """A Markdown table with one row per key: dotted name, allowed values, default, explanation."""
    schema = Study.model_json_schema()
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for key, value, default, explanation in _rows(schema, schema["$defs"], ""):
        lines.append(f"| `{key}` | {value} | {default} | {' '.join(explanation.split())} |")
    return "\n".join(lines) + "\n"


def readme_text(current: str) -> str:
    """``current`` with the key table between its markers renewed. Raises ValueError where a marker is missing."""
    before, begin, rest = current.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README} needs the two lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{key_table()}\n{END}{after}"


def generated(repository: Path = REPOSITORY) -> dict[Path, str]:
    """Relative path → what that generated file must hold."""
    return {
        SCHEMA: schema_text(),
        README: readme_text((repository / README).read_text(encoding="utf-8")),
    }


def out_of_date(repository: Path = REPOSITORY) -> list[Path]:
    """The generated files that do not hold what they must."""
    return [
        path
        for path, text in generated(repository).items()
        if not (repository / path).is_file() or (repository / path).read_text(encoding="utf-8") != text
    ]


# -------------------------------------------------------------------------------------------- reading the schema


def _rows(section: Schema, definitions: Schema, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, value, default and explanation of every key in a section, its sub-sections' keys below it."""
    for name, field in section["properties"].items():
        key, inner = prefix + name, _without_null(field)
        default = _default(field, required=name in section.get("required", []))
        named = next(iter(inner.get("patternProperties", {}).values()), None)
        if named is not None:
            yield key, "name → section", default, field["description"]
            yield from _rows(_resolve(named, definitions), definitions, f"{key}.<name>.")
        elif "$ref" in inner:
            definition = _resolve(inner, definitions)
            # pydantic leaves out a key's explanation where it repeats the section's own.
            explanation = field.get("description", definition["description"])
            yield key, "section", _section_default(field, definition), explanation
            yield from _rows(definition, definitions, f"{key}.")
        else:
            yield key, _allowed(inner), default, field["description"]


def _resolve(reference: Schema, definitions: Schema) -> Schema:
    definition: Schema = definitions[reference["$ref"].rpartition("/")[2]]
    return definition


def _without_null(field: Schema) -> Schema:
    """The schema of a field's values besides null, which stands for *unset*."""
    options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
    if len(options) > 1:
        return {"anyOf": options}
    return options[0] if options else field


def _default(field: Schema, required: bool) -> str:
    if required:
        return "**required**"
    default = field.get("default")
    return "unset" if default is None else _code(default)


def _section_default(field: Schema, definition: Schema) -> str:
    """What a section holds where it is left out, besides the defaults of its keys."""
    keys = definition["properties"]
    own = {key: value for key, value in (field.get("default") or {}).items() if value != keys[key].get("default")}
    own = {key: value for key, value in own.items() if "$ref" not in keys[key]}
    return _code(own) if own else ""


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace('"', "")


def _allowed(schema: Schema) -> str:
    """The allowed values in words; raises KeyError for a kind of schema that has no words yet."""
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_allowed(item) for item in schema['prefixItems'])}]"
        return f"list of: {_allowed(schema['items'])}"
    if schema["type"] == "object":
        values = schema["additionalProperties"]
        return f"mapping to: {_allowed(values)}" if isinstance(values, dict) else "mapping"
    if schema["type"] == "string":
        return {r"^#[0-9a-fA-F]{6}$": "`#rrggbb`", None: "text"}.get(schema.get("pattern"), "name (`A-Za-z0-9._-`)")
    bounds = [
        f"{sign} {_number(schema[bound])}"
        for bound, sign in {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}.items()
        if bound in schema
    ]
    kind = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`"}[schema["type"]]
    return f"{kind} {', '.join(bounds)}".rstrip()


def _number(value: float) -> str:
    return "2³²" if value == 2**32 else f"{value:g}"


def main(arguments: list[str] | None = None, repository: Path = REPOSITORY) -> int:
    """The command line; returns the exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m batchscope.config.reference", description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="regenerate the schema and the key table")
    action.add_argument("--check", action="store_true", help="exit with 1 if one of them is out of date")
    write = parser.parse_args(arguments).write
    stale = out_of_date(repository)
    for path in stale:
        if write:
            write_text(repository / path, generated(repository)[path])
        print(f"{path}: {'written' if write else 'out of date; run `make docs`'}")
    return 0 if write else int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
