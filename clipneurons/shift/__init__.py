"""Dataset shift: noticed, named and located."""
