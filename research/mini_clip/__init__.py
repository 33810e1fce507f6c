"""The shipped small CLIPs: their data, training and evaluation."""
