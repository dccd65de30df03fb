//! The OpenAI wire: what a request body says, edits on it, SSE, and error objects.
