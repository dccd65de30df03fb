//! Tests of `prompt_guard`.
