"""A program that talks to a model: somebody else's, who tests it with gglib's mock."""

import httpx


def greet(base_url: str, name: str) -> str:
    """Return what the model says to ``name``."""
    body = {"model": "qwen", "messages": [{"role": "user", "content": f"Greet {name}."}]}
    answer = httpx.post(f"{base_url}/chat/completions", json=body, trust_env=False)
    answer.raise_for_status()
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content
