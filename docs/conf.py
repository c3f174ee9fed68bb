"""The documentation as a site: `make docs`, then open site/docs/index.html. Whatever does not resolve is an error.

Its source is the whole checkout, since pages link to the README, the log and tables of results, and those must resolve.
"""

from flowtracer import __version__

project = "FlowTracer"
copyright = "the authors of FlowTracer, Apache-2.0"
release = __version__
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "examples/**.md", "experiments/**.md", "src/flowtracer/model/*/README.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

html_theme = "furo"
html_title = "FlowTracer"
html_copy_source = False

myst_heading_anchors = 4
# Tables and the log stand beside the pages that cite them, in no list of contents.
suppress_warnings = ["toc.not_included"]

autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
