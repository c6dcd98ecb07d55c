"""GGUF files as targets of `evaluate`, run by llama.cpp's own server."""
