"""Builds the documentation site from the Markdown files of the repository: ``make site`` calls this.

The pages keep their places, so that a link between two of them works on the site as it does in the repository. A link
to another file of the repository becomes plain text. A link to a file that does not exist, or to a heading that a page
does not have, ends the build with status 1, as every warning of the generator does.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGES = BUILD / "pages"
SETTINGS = ROOT / "docs/zensical.toml"

# Section of the navigation → its pages. A pattern takes the pages that are not named elsewhere.
SECTIONS = {
    "Start": [
        *("README.md", "docs/tutorial.md", "docs/report.md", "docs/imdb-small.md", "docs/imdb-claims.md"),
        "docs/imdb-insight.md",
        "docs/reference-study*.md",
    ],
    "Guides": [
        "docs/data.md",
        "docs/watching.md",
        "docs/clusters.md",
        "docs/environments.md",
        "docs/module.md",
        "docs/axes*.md",
        "docs/insight.md",
        "docs/branch*.md",
    ],
    "Method": [
        *("docs/accumulation.md", "docs/noise-scale.md", "docs/method*.md", "docs/design*.md", "docs/forensics*.md"),
        "docs/benchmarks.md",
    ],
    "Reference": ["config/README.md", "docs/files.md", "results/README.md", "docs/reruns.md", "docs/reliability.md"],
    "Help": ["docs/faq.md", "docs/troubleshooting.md", "CHANGELOG.md"],
    "Development": ["CONTRIBUTING.md", "docs/architecture.md", "docs/testing.md"],
    "More": ["docs/*.md"],
}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|`[^`]*`)*)\]\(([^)\s]+)\)")


def navigation() -> dict[str, list[Path]]:
    """Section → pages, relative to the repository; each page once. Raises SystemExit where a named page is missing."""
    named = {Path(page) for pages in SECTIONS.values() for page in pages if "*" not in page}
    if missing := [str(page) for page in named if not (ROOT / page).is_file()]:
        sys.exit(f"docs/build_site.py: SECTIONS names pages that do not exist: {', '.join(missing)}")
    sections: dict[str, list[Path]] = {}
    taken = set(named)
    for section, patterns in SECTIONS.items():
        pages = sections[section] = []
        for pattern in patterns:
            found = (
                [path.relative_to(ROOT) for path in sorted(ROOT.glob(pattern))] if "*" in pattern else [Path(pattern)]
            )
            pages += [page for page in found if "*" not in pattern or page not in taken]
            taken.update(found)
    return {section: pages for section, pages in sections.items() if pages}


def for_the_site(page: Path, text: str, pages: set[Path]) -> str:
    """The text of a page whose links lead to pages alone. Raises SystemExit where one leads nowhere."""

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        path = target.partition("#")[0]
        if not path or "://" in path:
            return match[0]
        file = (ROOT / page.parent / path).resolve()
        if not file.exists():
            sys.exit(f"{page}: the link [{words}]({target}) leads to {path}, which does not exist")
        return match[0] if file.relative_to(ROOT) in pages else words

    parts = re.split(r"(^```.*?^```|`[^`\n]+`(?!\]))", text, flags=re.M | re.S)
    return "".join(part if number % 2 else LINK.sub(link, part) for number, part in enumerate(parts))


def gather(sections: dict[str, list[Path]]) -> None:
    """Put the pages and the pictures beside them below build/pages, and the generator's settings beside it."""
    shutil.rmtree(BUILD / "pages", ignore_errors=True)
    pages = {page for of_section in sections.values() for page in of_section}
    for page in pages:
        target = PAGES / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(for_the_site(page, (ROOT / page).read_text(encoding="utf-8"), pages), encoding="utf-8")
    for picture in [*(ROOT / "docs").glob("*.png"), *(ROOT / "docs").glob("*.svg")]:
        shutil.copy(picture, PAGES / "docs")
    entries = [
        f"{{{json.dumps(section)} = {json.dumps([str(page) for page in of_section])}}}"
        for section, of_section in sections.items()
    ]
    settings = SETTINGS.read_text(encoding="utf-8").replace("nav = []", f"nav = [{', '.join(entries)}]")
    (BUILD / "zensical.toml").write_text(settings, encoding="utf-8")


def main() -> int:
    """Build the site; the exit status."""
    gather(navigation())
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    return subprocess.run(command, cwd=BUILD, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
