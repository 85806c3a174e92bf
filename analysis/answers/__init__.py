"""Sentences and tables that answer a question: findings, verdict, recommendation, precision, comparison.

A module computes its answer as dataclasses of numbers; one named ``..._text`` tells it in words. The report
and the command line import from here. The next question goes into a file named after its answer. Whatever is
chosen here is chosen by validation accuracy; test accuracy is shown for what was chosen, and named so.
"""
