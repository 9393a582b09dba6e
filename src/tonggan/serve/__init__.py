"""A model behind an OpenAI-compatible address: the engine without HTTP, the HTTP entrance, and its guards."""
