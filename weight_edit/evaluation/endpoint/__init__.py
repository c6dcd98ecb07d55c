"""A client of chat servers that speak the protocol of OpenAI: vLLM, llama.cpp, Ollama, SGLang and hosted ones."""
