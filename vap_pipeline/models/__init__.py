"""Projection models: the network, its checkpoints, and its predictions."""
