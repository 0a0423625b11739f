"""Sphinx: `make site`."""

project = "blendrun"
copyright = "blendrun's authors, Apache-2.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build", "schemas/*"]
html_theme = "furo"
html_title = "blendrun"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Pages link to files of the repository too (schemas, SECURITY.md), which are read beside the site.
html_extra_path: list[str] = []
linkcheck_timeout = 20
