"""Files, folders, Parquet, tensors and Markdown, and the error that users see."""
