//! Chat request bodies of given size and content.

/// What the text of a body is like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    /// No escapes.
    Plain,
    /// A line break every 80 bytes.
    Prose,
    /// Code: an escape every 5 bytes or so.
    Code,
    /// Many short messages, tools and token-like structure.
    Chat,
}

impl Content {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Prose, Self::Code, Self::Chat];

    fn text(self) -> &'static str {
        match self {
            Self::Plain => "The quick brown fox jumps over the lazy dog while the cat sleeps. ",
            Self::Prose => {
                "The quick brown fox jumps over the lazy dog while the cat sleeps on the mat.\\n\\n"
            }
            Self::Code => "if\\n\\tx[\\\"a\\\"] = \\\"b\\\\n\\\";\\n",
            Self::Chat => "Is it?\\nYes.",
        }
    }
}

/// A body of about `bytes`, the model before or after the messages.
pub(crate) fn body(bytes: usize, content: Content, model_first: bool) -> String {
    let per_message = match content {
        Content::Chat => 60,
        _ => (bytes / 4).max(64),
    };
    let mut messages = String::new();
    while messages.len() + 150 < bytes {
        let separator = if messages.is_empty() { "" } else { "," };
        messages.push_str(separator);
        messages.push_str(r#"{"role":"user","content":""#);
        let end = (messages.len() + per_message).min(bytes.saturating_sub(100));
        while messages.len() < end {
            messages.push_str(content.text());
        }
        messages.push_str("\"}");
    }
    let model = r#""model":"meta-llama/Llama-3.1-8B-Instruct""#;
    let rest = r#""stream":true,"max_tokens":256,"temperature":0.7"#;
    if model_first {
        format!("{{{model},{rest},\"messages\":[{messages}]}}")
    } else {
        format!("{{\"messages\":[{messages}],{rest},{model}}}")
    }
}
