"""Everything that params.yaml may say: one module a section, each a dataclass."""
