"""Files, network, tokenizer: nothing here is about transformers."""
