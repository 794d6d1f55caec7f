"""Examples: files to rows to conversations to token ids with a learn mask; checks, splits and versions of data sets."""
