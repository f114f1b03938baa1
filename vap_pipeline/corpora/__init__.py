"""Stage ``vap-manifest``: readers, each a function from a corpus's files to a manifest."""
