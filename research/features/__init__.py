"""Neurons, features and random directions of one layer under the same test."""
