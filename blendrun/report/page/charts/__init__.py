"""The pictures of a page, as Vega-Lite specifications."""
