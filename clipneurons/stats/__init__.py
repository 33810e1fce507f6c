"""Intervals and two-sample tests."""
