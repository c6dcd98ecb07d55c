"""The terminal's face of a chat: the line editor, columns that stream, bars beside them, and plain text in a pipe."""
