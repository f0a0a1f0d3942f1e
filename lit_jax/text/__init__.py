"""Words: class tables, captions, prompts and tokenizers."""
