"""What stages hand on: the manifest, the feature store and its windows, and files of scores."""
