"""Samples in, feature frames out: the CPC encoder and its weights."""
