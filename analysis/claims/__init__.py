"""The testable claims of the RevNet paper, each judged from the rows of a store.

``claim`` says what a claim is, ``judge`` judges them all; the others hold the claims, each with its rule.
Others import `analysis.claims.judge`. A new claim goes into the file of its subject: accuracy, cost,
fidelity, or pairs of networks.
"""
