"""Sentences and tables that answer a question: findings, verdict, recommendation, comparison."""
