"""The CPC encoder: its network, its weights, and how they are learned."""
