"""Prompts from a language model behind any OpenAI-compatible endpoint: hosted, vLLM, Ollama, llama.cpp's server.

`requests` says what is asked, `endpoint` asks it, `replies` reads what comes back, `journal` keeps it on the disk, and
`writer` does all that in parallel until there are enough prompts.
"""
