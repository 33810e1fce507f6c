"""Reproduces the papers, compares methods, trains the small CLIPs, measures speed."""
