"""Tests of questions about stored flows."""
