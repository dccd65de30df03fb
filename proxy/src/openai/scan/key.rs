//! The top-level fields of a request that the gateway reads or may edit. All others pass through unseen.

macro_rules! keys {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A top-level field that the gateway acts on. It may stand only once in a body.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Key {
            $($(#[$doc])* $variant,)+
        }

        impl Key {
            /// The field's name on the wire.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The field of this name, taken after unescaping.
            pub(super) fn from_name(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() {
                    return Some(Self::$variant);
                })+
                None
            }
        }
    };
}

keys! {
    /// Names the model: what routing goes by.
    Model = "model",
    /// Asks for an SSE stream.
    Stream = "stream",
    /// Options of that stream; `include_usage` is the one we may set.
    StreamOptions = "stream_options",
    /// Output limit of completions, older chat clients and Anthropic messages.
    MaxTokens = "max_tokens",
    /// Output limit of chat completions.
    MaxCompletionTokens = "max_completion_tokens",
    /// Output limit of the Responses API.
    MaxOutputTokens = "max_output_tokens",
    /// Choices asked for.
    N = "n",
    /// Chat and Anthropic messages.
    Messages = "messages",
    /// Prompt of completions.
    Prompt = "prompt",
    /// Input of embeddings and the Responses API.
    Input = "input",
    /// Anthropic's system prompt.
    System = "system",
    /// System prompt of the Responses API.
    Instructions = "instructions",
    /// Query of rerank.
    Query = "query",
    /// Documents of rerank.
    Documents = "documents",
    /// First text (or texts) of score.
    Text1 = "text_1",
    /// Second text (or texts) of score.
    Text2 = "text_2",
    /// Tool definitions.
    Tools = "tools",
    /// End user, as the client names them.
    User = "user",
    /// Client's extra data; `session_id` and `user_id` in it are hints.
    Metadata = "metadata",
    /// Session hint.
    SessionId = "session_id",
    /// Session hint of the OpenAI API.
    PromptCacheKey = "prompt_cache_key",
    /// Session hint of the Responses API.
    Conversation = "conversation",
    /// Session hint of the Responses API.
    PreviousResponseId = "previous_response_id",
    /// Separates prefix caches of tenants (vLLM).
    CacheSalt = "cache_salt",
    /// Disaggregation parameters (vLLM): the gateway's to set.
    KvTransferParams = "kv_transfer_params",
    /// Disaggregation parameter (SGLang).
    BootstrapHost = "bootstrap_host",
    /// Disaggregation parameter (SGLang).
    BootstrapPort = "bootstrap_port",
    /// Disaggregation parameter (SGLang).
    BootstrapRoom = "bootstrap_room",
}
