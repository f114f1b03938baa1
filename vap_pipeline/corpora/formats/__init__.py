"""Label files of any kind: a reader for every format, chosen by suffix and content."""
