"""Stage ``vap-train``: train one model on one fold."""
