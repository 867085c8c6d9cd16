"""The judgement for each reader: a table, Markdown, JSON, JUnit XML, and the files that were asked for.

gate and history may import it; it imports formats, judge, report and runs.
"""
