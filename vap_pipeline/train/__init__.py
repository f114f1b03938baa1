"""Stage two: train a light model on what stage one wrote down."""
