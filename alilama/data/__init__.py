"""Text files, the tokenizer, token files, batches."""
