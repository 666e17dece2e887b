"""The page of a run: sections of text, tables and figures, made from what the evaluations came to.

evaluate nodes -> gathered -> sections -> page (report.html, tables as CSV and Markdown, figures as PNG and SVG)
"""
