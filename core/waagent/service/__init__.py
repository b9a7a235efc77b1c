"""The three processes: supervisor, boot stage, worker."""
