"""The page of a run: sections of text, tables and figures, made from what the evaluations came to.

In: artifacts of `evaluate`, gathered by data set (load_results.py). Out: report.html, which needs nothing beside it,
tables as CSV and Markdown, figures as PNG and SVG; the table of settings on the terminal (table.py).
Open first: assemble.py (the order of a page), then sections.py (who builds what).
"""
