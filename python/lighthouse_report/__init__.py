"""lighthouse-report: runs of `lighthouse train` and results of `lighthouse eval` as one page (docs/report.md).

A package of its own beside lighthouse_attention, because it needs neither torch nor the operators.
"""
