"""Run directories to comparison, page, Markdown and JSON."""
