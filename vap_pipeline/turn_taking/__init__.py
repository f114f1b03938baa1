"""The papers as code: arrays in, arrays out, no files."""
