"""Self-contained pages besides the report: rendered from the templates beside this module, in the report's style."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from batchscope.report.inlined import style


def render(template: str, context: dict[str, object]) -> str:
    """A page. Every text in ``context`` is shown as text."""
    environment = Environment(
        loader=PackageLoader("batchscope.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render({**context, "style": style()})
