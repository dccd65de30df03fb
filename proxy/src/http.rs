//! Message heads as the rooms above the wire see them: plain `http` types, no Pingora type.

pub mod hygiene;
pub mod identity;

use http::{HeaderMap, Method, StatusCode, Uri, Version};

/// Head of a client's request. Filters may edit it; what they leave is what the engine gets.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Origin form: path and query.
    pub uri: Uri,
    /// The client's HTTP version.
    pub version: Version,
    /// Fields, hop-by-hop ones already removed.
    pub headers: HeaderMap,
}

/// Head of a response on its way to the client.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// Fields, hop-by-hop ones already removed.
    pub headers: HeaderMap,
}
