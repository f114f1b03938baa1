"""Stage ``vap-extract``: encode every conversation once, into the feature store."""
