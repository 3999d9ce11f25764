"""How Sphinx renders the book. ``make docs`` lays its sources out and calls it."""

from importlib import metadata

from docutils import nodes
from latex2mathml.converter import convert

from utils import settings
from utils.pipeline.address import repository

REPOSITORY = repository()

project = "DavidNet, explained"
version = release = metadata.version("davidnet-explained")
html_title = project
language = "en"

extensions = [
    "myst_nb",  # the executed notebooks, and Markdown
    "sphinx.ext.autodoc",  # the API, from the docstrings
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",  # their "Args:" and "Returns:"
    "sphinx.ext.viewcode",
]
exclude_patterns = [
    "ablation.md",
    "candidates.md",
    "trust/*",
    "_templates",
]  # not pages by themselves

nb_execution_mode = "off"  # what a chapter shows is what the run computed
nb_render_markdown_format = "myst"  # so that links between chapters are found
nb_merge_streams = True
nb_code_prompt_show = "Show the {type} of this cell"
nb_code_prompt_hide = "Hide the {type} of this cell"
myst_heading_anchors = 3
myst_enable_extensions = ["substitution", "dollarmath"]
html_math_renderer = "mathml"  # browsers draw it themselves; Sphinx's own fetches a script
myst_substitutions = {
    "repository": f"[the repository](https://github.com/{REPOSITORY})"
    if REPOSITORY
    else "the repository",
    "colab": "Each chapter has a badge that opens it in Colab, where it fetches what it needs."
    if REPOSITORY
    else "",
    "parameters": settings.table(),
}

default_role = "py:obj"  # a name in single backticks links to its description, if there is one
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autosummary_generate = True
autosummary_ignore_module_all = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False

templates_path = ["_templates"]
html_theme = "furo"  # no fonts or scripts from elsewhere, light and dark, reads well on a phone
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
if REPOSITORY:
    html_theme_options["source_repository"] = f"https://github.com/{REPOSITORY}"


def setup(app):
    """Write formulas as MathML."""
    app.add_html_math_renderer("mathml", (_write_formula, None), (_write_formula, None))


def _write_formula(writer, node):
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    writer.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode
