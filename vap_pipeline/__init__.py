"""Voice activity projection in two stages: encode conversations once, train light models from the store."""
