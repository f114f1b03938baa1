"""Stage ``vap-evaluate``: score a model on the test set; find and count a corpus's events."""
